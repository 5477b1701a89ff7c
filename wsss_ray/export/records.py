"""Images of a unit joined with their labels, checked, one at a time: what every format is written from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from wsss_ray.classes import ClassSet
from wsss_ray.export.pictures import portable_picture
from wsss_ray.images.header import ImageError
from wsss_ray.images.rle import decode_mask, parse_counts
from wsss_ray.labels.run import LabelRun, label_of, read_joined
from wsss_ray.shards.footers import ShardError
from wsss_ray.shards.label_files import read_labels
from wsss_ray.shards.row_checks import check_image_id
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One box and its mask."""

    class_id: int
    phrase: str
    """What the detector was asked for."""
    score: float
    """The detector's, 0 to 1."""
    box: tuple[float, float, float, float]
    """The detector's box, XYXY pixels."""
    mask_score: float
    """The segmenter's own estimate of the mask's IoU."""
    height: int
    """Of the image, as `width`."""
    width: int
    counts: bytes
    """Compressed COCO counts of the mask; they fill the image's size."""

    @property
    def rle(self) -> dict[str, Any]:
        """The mask as pycocotools takes it."""
        return {"size": [self.height, self.width], "counts": self.counts}

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(coco_mask.area(self.rle))

    def mask(self) -> np.ndarray:
        """(height, width) bool mask."""
        return decode_mask(self.counts, self.height, self.width)


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """One image with its label."""

    image_id: str
    height: int
    width: int
    file_name: str
    """The image's name in the export or, where images are not copied, its original path."""
    picture: bytes | None
    """Encoded image, or None where images are not copied."""
    label: np.ndarray
    """(height, width) class ids, uint8 or uint16 as the class set says."""
    instances: tuple[Instance, ...] | None
    """None for predictions."""
    tags: tuple[str, ...]
    status: str
    change: str | None = None
    """What was done to the image beyond copying it; see `pictures`."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """One image that the export leaves out."""

    image_id: str
    reason: str
    """The failed row's own reason, or what is wrong with the row."""


class _UnusableError(ValueError):
    """A row that cannot be exported; the text is the reason."""


@dataclass(frozen=True, kw_only=True)
class RecordReader:
    """Reads the records of units. Can be pickled."""

    images: Storage
    labels: Storage
    classes: ClassSet
    pictures: bool
    """Read the images, too."""
    known_ids: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        """Note the ids that labels may hold."""
        ids = {self.classes.background_id, self.classes.ignore_id, *self.classes.by_id}
        object.__setattr__(self, "known_ids", frozenset(ids))

    def read(self, unit: Unit) -> Iterator[Record | LeftOut]:
        """Every image of a unit, in order: a record, or why it is left out.

        Raises:
            ShardError: a file is damaged, or image and label file do not hold the same images.
        """
        columns = ["source", "image"] if self.pictures else ["source"]
        for image, label in read_joined(self.images, self.labels, unit, columns=columns):
            try:
                yield self._record(unit, image, label)
            except _UnusableError as error:
                yield LeftOut(image_id=label["image_id"], reason=str(error))

    def _record(self, unit: Unit, image: dict[str, Any], row: dict[str, Any]) -> Record:
        if row["status"] == "failed" or row["label"] is None:
            raise _UnusableError(row["error"] or "the row has no label and does not say why")
        try:
            image_id = check_image_id(row["image_id"])
        except ValueError as error:
            raise _UnusableError(f"export: {error}") from error
        file_name, data, change = image["source"], None, None
        if self.pictures:
            try:
                picture = portable_picture(image["image"], exif=unit.exif, max_pixels=unit.max_pixels)
            except ImageError as error:
                raise _UnusableError(f"export: image: {error}") from error
            file_name, data, change = f"{image_id}{picture.suffix}", picture.data, picture.change
        return Record(
            image_id=image_id,
            height=row["height"],
            width=row["width"],
            file_name=file_name,
            picture=data,
            label=self._label(row),
            instances=self._instances(row),
            tags=tuple(row["tags"]),
            status=row["status"],
            change=change,
        )

    def _label(self, row: dict[str, Any]) -> np.ndarray:
        try:
            label = label_of(row)
        except ShardError as error:
            raise _UnusableError(f"export: {error}") from error
        unknown = set(np.flatnonzero(np.bincount(label.reshape(-1)))) - self.known_ids
        if unknown:
            raise _UnusableError(f"export: label: no class has the id {min(unknown)}")
        return label.astype(self.classes.label_dtype, copy=False)

    def _instances(self, row: dict[str, Any]) -> tuple[Instance, ...] | None:
        if row["instances"] is None:
            return None
        return tuple(self._instance(row, index, instance) for index, instance in enumerate(row["instances"]))

    def _instance(self, row: dict[str, Any], index: int, values: dict[str, Any]) -> Instance:
        mask = values["mask"]
        try:
            runs = parse_counts(mask["counts"])
        except ValueError as error:
            raise _UnusableError(f"export: mask {index}: {error}") from error
        size = (row["height"], row["width"])
        fills = runs.sum() == size[0] * size[1] and (runs >= 0).all()
        if (mask["height"], mask["width"]) != size or not fills:
            raise _UnusableError(
                f"export: mask {index}: it does not fill the image's {size[1]} x {size[0]} (width x height)"
            )
        if values["class_id"] not in self.classes.by_id:
            raise _UnusableError(f"export: mask {index}: no class has the id {values['class_id']}")
        numbers = [values["score"], values["mask_score"], *values["box"]]
        if not all(map(math.isfinite, numbers)):
            raise _UnusableError(f"export: mask {index}: its score or box is not a number")
        score, mask_score, *box = (_shortest(number) for number in numbers)
        return Instance(
            class_id=values["class_id"],
            phrase=values["phrase"],
            score=score,
            box=(box[0], box[1], box[2], box[3]),
            mask_score=mask_score,
            height=size[0],
            width=size[1],
            counts=mask["counts"],
        )


def holds_instances(run: LabelRun) -> bool | None:
    """Whether the rows of a run have instances, as its first row that has not failed tells; None where all failed."""
    for unit in run.units:
        for row in read_labels(run.labels, unit.label_path).select(["status", "instances"]).to_pylist():
            if row["status"] != "failed":
                return row["instances"] is not None
    return None


def _shortest(value: float) -> float:
    """The float with the fewest digits that is the same float32: 0.3 rather than 0.30000001192092896."""
    return float(str(np.float32(value)))
