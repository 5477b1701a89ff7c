"""Lists of image ids: which images a job uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsss_ray.config import StorageConfig
from wsss_ray.labels.selection import ImageSelection

IDS = ["a", "b", "c", "d"]


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_only_and_exclude_leave_the_rest(tmp_path: Path) -> None:
    only = write(tmp_path, "only.txt", "a\n\n# a comment\n b \nd\nz\n")
    exclude = write(tmp_path, "exclude.txt", "b\nc\n")
    both = ImageSelection.read(only=only, exclude=exclude, storage=StorageConfig())
    assert both.left_out(IDS) == [1, 2]
    assert both.check_named(IDS) == 1
    assert ImageSelection.read(only=only, exclude=None, storage=StorageConfig()).left_out(IDS) == [2]
    assert ImageSelection.read(only=None, exclude=exclude, storage=StorageConfig()).left_out(IDS) == [1, 2]
    assert len({both.digest, ImageSelection().digest, ImageSelection(only=both.only).digest}) == 3


def test_without_lists_every_image_is_used() -> None:
    everything = ImageSelection.read(only=None, exclude=None, storage=StorageConfig())
    assert everything.is_everything
    assert everything.left_out(IDS) == []


@pytest.mark.parametrize("flag", ["only", "exclude"])
def test_a_list_of_other_ids_is_refused(tmp_path: Path, flag: str) -> None:
    path = write(tmp_path, "ids.txt", "2007_000032\n")
    selection = ImageSelection.read(**{"only": None, "exclude": None, flag: path}, storage=StorageConfig())
    with pytest.raises(ValueError, match=f"none of the 1 ids of --{flag} is in the image shards.*'2007_000032'"):
        selection.check_named(IDS)


def test_an_empty_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--only .*ids\.txt names no image id"):
        ImageSelection.read(only=write(tmp_path, "ids.txt", "#\n"), exclude=None, storage=StorageConfig())
