"""Images of a unit joined with their labels and checked, one at a time: the input of every format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc

from wsss_ray.classes import ClassSet
from wsss_ray.export.exported import LeftOut
from wsss_ray.export.portable_images import portable_image
from wsss_ray.images.header import ImageError
from wsss_ray.labels.run import LabelRun, OnDamage, read_joined
from wsss_ray.labels.selection import ImageSelection
from wsss_ray.shards.footers import ShardError
from wsss_ray.shards.instance import Instance
from wsss_ray.shards.label_files import read_labels
from wsss_ray.shards.label_row import LabelRow
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """One image with its label."""

    image_id: str
    height: int
    width: int
    file_name: str
    """The image's name in the export or, where images are not copied, its original path."""
    image: bytes | None
    """Encoded image, or None where images are not copied."""
    label: np.ndarray
    """(height, width) class ids, uint8 or uint16 as the class set says."""
    instances: tuple[Instance, ...] | None
    """None for predictions."""
    tags: tuple[str, ...]
    status: str
    """One of "ok", "no_tags", "no_detections"."""
    change: str | None = None
    """How the encoded image differs from the original one; see `portable_images`."""


class _UnusableError(ValueError):
    """A row that cannot be exported; the text is the reason."""


@dataclass(frozen=True, kw_only=True)
class RecordReader:
    """Reader of the records of units. It is pickled to Ray tasks."""

    images: Storage
    labels: Storage
    classes: ClassSet
    reads_images: bool
    """Whether the encoded images are read, too."""
    selection: ImageSelection = field(default_factory=ImageSelection)
    """Images to export."""
    known_ids: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        """Collect the ids that label maps may contain."""
        ids = {self.classes.background_id, self.classes.ignore_id, *self.classes.by_id}
        object.__setattr__(self, "known_ids", frozenset(ids))

    def read(self, unit: Unit, on_damage: OnDamage) -> Iterator[Record | LeftOut]:
        """Iterate over the images of a unit in order: records, or why an image is left out.

        Args:
            unit: one with a label file.
            on_damage: called with the reason if the label file cannot be used; all images are left out then.

        Raises:
            ShardError: the image shard is damaged.
        """
        columns = ["source", "image"] if self.reads_images else ["source"]
        joined = read_joined(self.images, self.labels, unit, self.classes, columns=columns, on_damage=on_damage)
        for image, label in joined:
            if not self.selection.uses(label.image_id):
                continue
            try:
                yield self._record(unit, image, label)
            except (_UnusableError, ShardError) as error:
                yield LeftOut(image_id=label.image_id, reason=str(error))

    def _record(self, unit: Unit, image: dict[str, Any], row: LabelRow) -> Record:
        if row.failed:
            raise _UnusableError(row.error or "the row has no label and does not say why")
        file_name, data, change = image["source"], None, None
        if self.reads_images:
            try:
                portable = portable_image(image["image"], exif=unit.exif, max_pixels=unit.max_pixels)
            except ImageError as error:
                raise _UnusableError(f"export: image: {error}") from error
            file_name, data, change = f"{row.image_id}{portable.suffix}", portable.data, portable.change
        label = row.label_map()
        unknown = set(np.flatnonzero(np.bincount(label.reshape(-1)))) - self.known_ids
        if unknown:
            raise _UnusableError(f"export: label: no class has the id {min(unknown)}")
        return Record(
            image_id=row.image_id,
            height=row.height,
            width=row.width,
            file_name=file_name,
            image=data,
            label=label.astype(self.classes.label_dtype, copy=False),
            instances=row.instances,
            tags=row.tags,
            status=row.status,
            change=change,
        )


def holds_instances(run: LabelRun) -> bool | None:
    """Return whether the first row that has not failed has instances; None if all rows failed."""
    for unit in run.units:
        with suppress(ShardError):  # reported with the unit
            rows = read_labels(run.labels, unit, columns=["status", "instances"])
            kept = rows.filter(pc.not_equal(rows["status"], "failed"))
            if kept.num_rows:
                return bool(kept["instances"][0].is_valid)
    return None


def shortest(value: float) -> float:
    """Return the float with the fewest digits that is the same float32: 0.3 rather than 0.30000001192092896."""
    return float(str(np.float32(value)))
