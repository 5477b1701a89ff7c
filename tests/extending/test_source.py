"""A source from outside of the package: registered in a notebook, and by an installed package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from repository import REPOSITORY

from wsss_ray.classes import ClassSet
from wsss_ray.config import ShardConfig
from wsss_ray.datasets.items import Item, Listing
from wsss_ray.datasets.source import SOURCES
from wsss_ray.engine.resources import Resources
from wsss_ray.sharding import job as sharding
from wsss_ray.shards.image_shards import read_shard_set, read_unit
from wsss_ray.storage.storage import Storage

PACKAGE = """
from wsss_ray.datasets.items import Item, Listing
from wsss_ray.storage.storage import Storage

class TaggedNames:
    default_classes = "coco"

    def list_images(self, config, class_set):
        images = Storage(config.input, config.storage)
        items = (
            Item(image_id=name.split(".")[0], path=name, size=info.size, tags=(name.split("-")[0],))
            for name, info in images.list().items()
        )
        return Listing(items=tuple(items), images=images, exif="apply")
"""
METADATA = "Metadata-Version: 2.1\nName: tagged-names\nVersion: 1.0\n"
ENTRY_POINTS = "[wsss_ray.sources]\ntagged-names = tagged_names:TaggedNames\n"


def write_photos(root: Path) -> Path:
    root.mkdir()
    for name in ("dog-1.png", "cat-1.png"):
        Image.new("RGB", (8, 6)).save(root / name)
    return root


def tags_of(output: Path) -> dict[str, list[str]]:
    storage = Storage(str(output))
    units = read_shard_set(storage).units
    return {row["image_id"]: row["tags"] for unit in units for row in read_unit(storage, unit).to_pylist()}


def test_a_registered_class_is_a_source(tmp_path: Path, local_ray: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SOURCES, "_entries", dict(SOURCES._entries))  # the next test's process has no such source

    @SOURCES.register("photos")
    class PhotoSource:
        default_classes = "voc"

        def list_images(self, config: ShardConfig, class_set: ClassSet) -> Listing:
            images = Storage(config.input, config.storage)
            items = [
                Item(image_id=name[:-4], path=name, size=info.size, tags=(class_set.canonical("Person"),))
                for name, info in images.list().items()
            ]
            return Listing(items=tuple(items), images=images, exif="apply")

    root = write_photos(tmp_path / "in")
    summary = sharding.run(ShardConfig(input=str(root), output=str(tmp_path / "out"), source="photos"))
    assert summary.rows == 2
    assert tags_of(tmp_path / "out") == {"cat-1": ["person"], "dog-1": ["person"]}


def test_an_installed_package_adds_a_source(tmp_path: Path, local_ray: Resources) -> None:
    """Found by its entry point, and by its name on the command line."""
    site = tmp_path / "site"
    (site / "tagged_names-1.0.dist-info").mkdir(parents=True)
    (site / "tagged_names.py").write_text(PACKAGE)
    (site / "tagged_names-1.0.dist-info/METADATA").write_text(METADATA)
    (site / "tagged_names-1.0.dist-info/entry_points.txt").write_text(ENTRY_POINTS)
    root = write_photos(tmp_path / "in")
    done = subprocess.run(
        [
            *(sys.executable, str(REPOSITORY / "jobs/shard.py"), "--source", "tagged-names"),
            *("--input", str(root), "--output", str(tmp_path / "out")),
        ],
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{site}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert tags_of(tmp_path / "out") == {"cat-1": ["cat"], "dog-1": ["dog"]}
    identity = (tmp_path / "out/shards.json").read_text()
    assert '"classes": "coco"' in identity, "the source's own class set"


def test_an_unknown_source_is_an_error_with_near_names() -> None:
    with pytest.raises(ValueError, match=r"unknown source `coc`. Did you mean `coco`\? Valid: voc, coco, folder"):
        ShardConfig(input="in", output="out", source="coc")
