"""Image shards and labels to judge, and the numbers counted again by other means: Pillow, plain loops, OpenCV."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from wsss_ray.classes import ClassSet
from wsss_ray.images.label_png import encode_label
from wsss_ray.shards.image_encoding import encode_image_shard, shard_name
from wsss_ray.shards.image_shards import ShardSet, read_shard_set, read_unit
from wsss_ray.shards.label_files import encode_labels
from wsss_ray.shards.schemas import IMAGE_SCHEMA, LABEL_SCHEMA
from wsss_ray.storage.storage import Storage

Pair = tuple[np.ndarray, np.ndarray]
"""Truth and label, (H, W) class ids."""


def png(label: np.ndarray) -> bytes:
    """Grey label PNG."""
    return encode_label(label, palette=None)


def write_shards(
    storage: Storage,
    truths: dict[str, np.ndarray | None],
    *,
    tags: dict[str, list[str]] | None = None,
    images_per_unit: int = 2,
    classes: str = "voc",
    exif: str = "ignore",
    image: bytes = b"",
    size: tuple[int, int] = (1, 1),
) -> ShardSet:
    """One image shard with these truths by id; the images are `image`. `size` is that of images without a truth."""
    sizes = [size if truth is None else truth.shape for truth in truths.values()]
    rows = pa.table(
        {
            "image_id": list(truths),
            "source": [""] * len(truths),
            "image": pa.array([image] * len(truths), pa.large_binary()),
            "height": pa.array([height for height, _ in sizes], pa.int32()),
            "width": pa.array([width for _, width in sizes], pa.int32()),
            "tags": pa.array([(tags or {}).get(image_id, []) for image_id in truths], pa.list_(pa.string())),
            "truth": pa.array([None if t is None else png(t) for t in truths.values()], pa.large_binary()),
        },
        schema=IMAGE_SCHEMA,
    )
    groups = [rows.slice(start, images_per_unit) for start in range(0, rows.num_rows, images_per_unit)]
    space = ClassSet.load(classes).label_space_digest
    data = encode_image_shard(groups, exif=exif, label_space=space, classes=classes)  # type: ignore[arg-type]
    storage.write(shard_name(0, 1), data)
    return read_shard_set(storage)


def write_run(
    storage: Storage,
    images: Storage,
    shards: ShardSet,
    make: Callable[[str, bytes | None], bytes | None],
    *,
    errors: dict[str, str] | None = None,
) -> None:
    """Label files of all units.

    The label is the PNG that `make` gives for an id and its truth PNG; the ids of `errors` are rows that failed with
    that error.
    """
    for unit in shards.units:
        rows = read_unit(images, unit).to_pylist()
        labels = [
            {
                "image_id": row["image_id"],
                "height": row["height"],
                "width": row["width"],
                "label": None if row["image_id"] in (errors or {}) else make(row["image_id"], row["truth"]),
                "instances": [],
                "tags": row["tags"],
                "undetected_tags": [],
                "status": "failed" if row["image_id"] in (errors or {}) else "ok",
                "error": (errors or {}).get(row["image_id"]),
            }
            for row in rows
        ]
        table = pa.Table.from_pylist(labels, schema=LABEL_SCHEMA)
        storage.write(unit.label_path, encode_labels(table, unit, {"images": len(labels)}))


def truths_of(folder: Path) -> dict[str, np.ndarray]:
    """Truth of all images of a folder of shards, by id, decoded by Pillow alone."""
    rows = [row for path in sorted(folder.glob("shard-*.parquet")) for row in pq.read_table(path).to_pylist()]
    return {row["image_id"]: np.array(Image.open(io.BytesIO(row["truth"]))) for row in rows}


def shifted(label: np.ndarray) -> np.ndarray:
    """The map moved three pixels to the right, its first column repeated."""
    return label[:, np.maximum(np.arange(label.shape[1]) - 3, 0)]


def count_again(pairs: Sequence[Pair], classes: int, *, ignore: int = 255) -> tuple[np.ndarray, np.ndarray]:
    """Pixels in both and in either, per class, with one boolean mask per class and image."""
    both, either = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    for truth, label in pairs:
        predicted = np.where(label == ignore, 0, label)[truth != ignore]
        wanted = truth[truth != ignore]
        for c in set(np.unique(wanted)) | set(np.unique(predicted)):
            both[c] += ((wanted == c) & (predicted == c)).sum()
            either[c] += ((wanted == c) | (predicted == c)).sum()
    return both, either


def miou_again(pairs: Sequence[Pair], classes: int, *, ignore: int = 255) -> float:
    """mIoU over the classes in the truth."""
    both, either = count_again(pairs, classes, ignore=ignore)
    present = [c for c in range(classes) if any((truth == c).any() for truth, _ in pairs)]
    return float(np.mean([both[c] / either[c] for c in present]))


def boundary_again(pairs: Sequence[Pair], classes: int, *, ignore: int = 255) -> float:
    """Mean boundary IoU, by erosion of one mask at a time, as the paper's published code does it."""
    both, either = np.zeros(classes), np.zeros(classes)
    for truth, label in pairs:
        width = max(1, round(0.02 * np.hypot(*truth.shape)))
        predicted = np.where(label == ignore, 0, label)
        for c in (set(np.unique(truth)) | set(np.unique(predicted))) - {ignore}:
            wanted = erode_away((truth == c), width)
            found = erode_away((predicted == c) & (truth != ignore), width)
            both[c] += (wanted & found).sum()
            either[c] += (wanted | found).sum()
    present = [c for c in range(classes) if any((truth == c).any() for truth, _ in pairs)]
    return float(np.mean([both[c] / either[c] for c in present]))


def erode_away(mask: np.ndarray, width: int) -> np.ndarray:
    """What `width` erosions by a 3 x 3 square take from a mask, the outside of the image being none of it."""
    framed = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    inner = cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=width)[1:-1, 1:-1]
    return mask & (inner == 0)
