"""Writing one shard, without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sharding_cases import all_rows, write_photos

from wsss_ray.classes import ClassSet
from wsss_ray.datasets.items import Item, Listing
from wsss_ray.datasets.rows import RowMaker, RowRules
from wsss_ray.sharding.writing import ShardTask, ShardWriter
from wsss_ray.shards.image_shards import read_shard_set
from wsss_ray.storage.storage import Storage


def writer_of(root: Path, output: Path, **options: Any) -> ShardWriter:
    images = Storage(str(root))
    listing = Listing(items=(), images=images, exif="ignore")
    rules = RowRules(exif="ignore", max_pixels=10**6, max_file_bytes=10**6, order="area", crowd="ignore")
    return ShardWriter(
        output=Storage(str(output)),
        maker=RowMaker(listing, ClassSet.load("voc"), rules),
        **{
            "images_per_unit": 3,
            "exif": "ignore",
            "max_pixels": rules.max_pixels,
            "label_space": "space",
            "classes": "voc",
            "skip_untagged": False,
            **options,
        },
    )


def task_of(root: Path, *, tags: tuple[str, ...] = ("dog",)) -> ShardTask:
    items = tuple(
        Item(image_id=path.stem, path=path.name, size=path.stat().st_size, tags=tags) for path in sorted(root.iterdir())
    )
    return ShardTask(index=0, total=1, items=items)


def test_row_groups_are_filled_with_good_rows_in_order(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "in", 10, broken=(0, 4, 5))
    report = writer_of(root, tmp_path / "out").write(task_of(root))
    units = read_shard_set(Storage(str(tmp_path / "out"))).units
    assert [unit.rows for unit in units] == [3, 3, 1]
    assert [row["image_id"] for row in all_rows(tmp_path / "out")] == ["001", "002", "003", "006", "007", "008", "009"]
    assert [entry.source for entry in report.rejected] == ["000.png", "004.png", "005.png"]
    assert (report.images, report.rows, report.tags) == (10, 7, {"dog": 7})


def test_a_shard_of_rejected_images_is_a_shard(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "in", 2, broken=(0, 1))
    assert writer_of(root, tmp_path / "out").write(task_of(root)).rows == 0
    assert read_shard_set(Storage(str(tmp_path / "out"))).units == ()


def test_untagged_images_are_kept_or_skipped(tmp_path: Path) -> None:
    root = write_photos(tmp_path / "in", 2)
    kept = writer_of(root, tmp_path / "kept").write(task_of(root, tags=()))
    assert (kept.rows, kept.untagged, kept.skipped) == (2, 2, 0)
    skipped = writer_of(root, tmp_path / "skipped", skip_untagged=True).write(task_of(root, tags=()))
    assert (skipped.rows, skipped.untagged, skipped.skipped) == (0, 0, 2)
