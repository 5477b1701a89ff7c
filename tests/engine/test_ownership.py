from __future__ import annotations

from pathlib import Path

import pytest

from wsss_ray.engine.ownership import Ownership
from wsss_ray.storage.json_files import read_json
from wsss_ray.storage.storage import Storage


def test_the_driver_that_started_last_owns_the_output(tmp_path: Path) -> None:
    output = Storage(str(tmp_path))
    first = Ownership.take(output, "driver.json", state=None)
    assert first.is_current()
    second = Ownership.take(output, "driver.json", state=None)
    assert second.is_current()
    assert not first.is_current()
    assert read_json(output, "driver.json") == {"state": None, "driver": second.driver}


def test_a_file_without_a_driver_has_no_owner(tmp_path: Path) -> None:
    owned = Ownership.take(Storage(str(tmp_path)), "gallery.json")
    (tmp_path / "gallery.json").write_text('{"state": "complete"}')
    assert not owned.is_current()


@pytest.mark.parametrize("text", [b"[1]", b"\xff\xfe{", b'{"driver": 5}', b"[" * 5000])
def test_a_damaged_file_is_named(tmp_path: Path, text: bytes) -> None:
    owned = Ownership.take(Storage(str(tmp_path)), "driver.json")
    (tmp_path / "driver.json").write_bytes(text)
    with pytest.raises(ValueError, match=r"driver\.json is damaged"):
        owned.is_current()


def test_a_removed_file_is_named(tmp_path: Path) -> None:
    owned = Ownership.take(Storage(str(tmp_path)), "driver.json")
    (tmp_path / "driver.json").unlink()
    with pytest.raises(ValueError, match=r"driver\.json was removed"):
        owned.is_current()
