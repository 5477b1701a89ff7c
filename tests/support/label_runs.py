"""Making image shards for a labelling run, and reading what it wrote."""

from __future__ import annotations

import pyarrow as pa

from wsss_ray.classes import ClassSet
from wsss_ray.config import LabelConfig
from wsss_ray.images.decoding import read_size
from wsss_ray.shards.image_encoding import encode_image_shard, shard_name
from wsss_ray.shards.image_shards import read_shard_set
from wsss_ray.shards.label_files import read_labels
from wsss_ray.shards.schemas import IMAGE_SCHEMA
from wsss_ray.storage.storage import Storage


def image_rows(images: dict[str, tuple[bytes, list[str]]]) -> pa.Table:
    """Rows in IMAGE_SCHEMA of encoded images and tags by id."""
    sizes = [read_size(data, exif="ignore", max_pixels=10**9) for data, _ in images.values()]
    return pa.table(
        {
            "image_id": list(images),
            "source": [f"{image_id}.jpg" for image_id in images],
            "image": pa.array([data for data, _ in images.values()], pa.large_binary()),
            "height": pa.array([height for height, _ in sizes], pa.int32()),
            "width": pa.array([width for _, width in sizes], pa.int32()),
            "tags": pa.array([tags for _, tags in images.values()], pa.list_(pa.string())),
            "truth": pa.nulls(len(images), pa.large_binary()),
        },
        schema=IMAGE_SCHEMA,
    )


def write_shards(
    storage: Storage, rows: pa.Table, *, images_per_unit: int, classes: str = "voc", shards: int = 1
) -> None:
    """Image shards of the rows, of about as many units each."""
    groups = [rows.slice(start, images_per_unit) for start in range(0, rows.num_rows, images_per_unit)]
    label_space = ClassSet.load(classes).label_space_digest
    each = -(-len(groups) // shards)
    for index in range(shards):
        some = groups[index * each : (index + 1) * each]
        data = encode_image_shard(some, exif="ignore", label_space=label_space, classes=classes)
        storage.write(shard_name(index, shards), data)


def label_rows(config: LabelConfig) -> list[dict[str, object]]:
    """All label rows of a finished run, in the order of its units."""
    storage = Storage(config.output, config.storage)
    shards = read_shard_set(Storage(config.input, config.storage))
    return [row for unit in shards.units for row in read_labels(storage, unit).to_pylist()]


def labels_by_id(config: LabelConfig) -> dict[str, bytes]:
    """The label PNG of every image of a finished run, each of which has one row."""
    rows = label_rows(config)
    assert len({row["image_id"] for row in rows}) == len(rows)
    return {str(row["image_id"]): row["label"] for row in rows}  # type: ignore[misc]
