"""Image shards with truth, and labels of them as a labelling run would leave them, without a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import simplejpeg
from scipy import ndimage

from wsss_ray.classes import ClassSet
from wsss_ray.images.label_png import decode_label, encode_label
from wsss_ray.images.rle import encode_mask
from wsss_ray.labels.sink import count_rows
from wsss_ray.labels.summary import summarise, write_summary
from wsss_ray.shards.image_encoding import encode_image_shard, shard_name
from wsss_ray.shards.image_shards import read_shard_set
from wsss_ray.shards.label_files import encode_labels
from wsss_ray.shards.schemas import IMAGE_SCHEMA, LABEL_SCHEMA
from wsss_ray.storage.storage import Storage


@dataclass(frozen=True, kw_only=True, eq=False)
class Made:
    """One image and its label."""

    image_id: str
    label: np.ndarray | None
    """(H, W) uint8 class ids; None for a failed image."""
    tags: Sequence[str] = ()
    instances: Sequence[Mapping[str, Any]] | None = ()
    truth: np.ndarray | None = None
    image: bytes | None = None
    """Encoded; a grey picture of the label's size where none is given."""
    error: str | None = None
    size: tuple[int, int] = field(default=(0, 0))
    """(height, width) where there is no label."""

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.size if self.label is None else (self.label.shape[0], self.label.shape[1])


def instance(
    class_id: int,
    mask: np.ndarray,
    *,
    score: float = 0.8,
    mask_score: float = 0.9,
    box: Sequence[float] | None = None,
    phrase: str = "thing",
) -> dict[str, Any]:
    """An entry of `instances` with an (H, W) bool mask; the box is the mask's own where none is given."""
    if box is None:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if rows.size else (0, 0, 0, 0)
    return {
        "class_id": class_id,
        "phrase": phrase,
        "score": score,
        "box": [float(value) for value in box],
        "mask_score": mask_score,
        "mask": {"height": mask.shape[0], "width": mask.shape[1], "counts": encode_mask(mask)},
    }


def instances_of(label: np.ndarray, classes: ClassSet, random: np.random.Generator) -> list[dict[str, Any]]:
    """An instance for every connected part of a class in a label map that has some size, with scores at random."""
    found = []
    for class_id in [int(value) for value in np.unique(label) if int(value) in classes.by_id]:
        parts, count = ndimage.label(label == class_id)
        for part in range(1, count + 1):
            mask = parts == part
            if mask.sum() >= 50:
                score, mask_score = random.uniform(0.3, 0.9), random.uniform(0.6, 1.0)
                phrase = classes.by_id[class_id].phrases[0]
                found.append(instance(class_id, mask, score=score, mask_score=mask_score, phrase=phrase))
    return found


def image_row(made: Made, palette: bytes | None) -> dict[str, Any]:
    """A row in IMAGE_SCHEMA."""
    height, width = made.shape
    image = made.image or simplejpeg.encode_jpeg(np.full((height, width, 3), 127, np.uint8), quality=90)
    return {
        "image_id": made.image_id,
        "source": f"{made.image_id}.jpg",
        "image": image,
        "height": height,
        "width": width,
        "tags": list(made.tags),
        "truth": None if made.truth is None else encode_label(made.truth, palette=palette),
    }


def label_row(made: Made, classes: ClassSet, palette: bytes | None) -> dict[str, Any]:
    """A row in LABEL_SCHEMA."""
    height, width = made.shape
    row: dict[str, Any] = {
        "image_id": made.image_id,
        "height": height,
        "width": width,
        "tags": list(made.tags),
        "error": made.error,
    }
    if made.label is None:
        return {**row, "status": "failed", "error": made.error or "label: broken"}
    found = {
        classes.by_id[entry["class_id"]].name for entry in made.instances or () if entry["class_id"] in classes.by_id
    }
    if made.instances is None:
        found = {classes.by_id[i].name for i in np.unique(made.label).tolist() if i in classes.by_id}
    status = "no_tags" if not made.tags else "ok" if found else "no_detections"
    return {
        **row,
        "label": encode_label(made.label, palette=palette),
        "instances": None if made.instances is None else list(made.instances),
        "undetected_tags": [tag for tag in made.tags if tag not in found],
        "status": status,
    }


def write_run(
    images: Storage,
    labels: Storage,
    shards: Sequence[Sequence[Made]],
    *,
    classes: ClassSet,
    images_per_unit: int = 2,
    identity: Mapping[str, Any] | None = None,
    exif: Literal["apply", "ignore"] = "apply",
) -> None:
    """Write image shards and, for every unit, its label file, with run.json and summary.json."""
    palette = classes.palette() if classes.label_dtype is np.uint8 else None
    for index, shard in enumerate(shards):
        rows = pa.Table.from_pylist([image_row(made, palette) for made in shard], schema=IMAGE_SCHEMA)
        groups = [rows.slice(start, images_per_unit) for start in range(0, rows.num_rows, images_per_unit)]
        data = encode_image_shard(groups, exif=exif, label_space=classes.label_space_digest, classes=classes.name)
        images.write(shard_name(index, len(shards)), data)
    shard_set = read_shard_set(images)
    run = {"detector": {"box_threshold": 0.3}, "shards": shard_set.digest, **(identity or {})}
    labels.write("run.json", json.dumps(run).encode())
    for index, shard in enumerate(shards):
        units = [unit for unit in shard_set.units if unit.shard == shard_name(index, len(shards))]
        for unit in units:
            start = unit.row_group * images_per_unit
            rows = [label_row(made, classes, palette) for made in shard[start : start + unit.rows]]
            table = pa.Table.from_pylist(rows, schema=LABEL_SCHEMA)
            pixels = [_pixels(row) for row in rows]
            labels.write(unit.label_path, encode_labels(table, unit, count_rows(table, classes, pixels)))
    write_summary(labels, summarise(labels, shard_set.units, None))


def _pixels(row: Mapping[str, Any]) -> dict[int, int]:
    if row.get("label") is None:
        return {}
    ids, counts = np.unique(decode_label(row["label"]), return_counts=True)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))
