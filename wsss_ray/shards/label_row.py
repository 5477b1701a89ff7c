"""The label row: one image with its label map, its instances, or the reason why it has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsss_ray.classes import ClassSet
from wsss_ray.images.header import ImageError
from wsss_ray.images.label_png import check_label_size, decode_label
from wsss_ray.shards.footers import ShardError
from wsss_ray.shards.instance import Instance
from wsss_ray.shards.schemas import STATUSES


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelRow:
    """One labelled image, as a label file holds it."""

    image_id: str
    height: int
    """Height of the image in pixels, as `width`."""
    width: int
    label: bytes | None = None
    """Label PNG; None where the image failed."""
    instances: tuple[Instance, ...] | None = None
    """In the detector's order; None for a failed image and for the predictions of a network."""
    tags: tuple[str, ...] = ()
    """Names of the image's classes."""
    undetected_tags: tuple[str, ...] | None = None
    """Tags without a box or, in predictions, without a pixel."""
    status: str
    """One of STATUSES."""
    error: str | None = None
    """Stage and reason of a failure."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any], classes: ClassSet | None = None) -> LabelRow:
        """Parse a row of a label file.

        Args:
            row: Python values by column of LABEL_SCHEMA; columns that were not read count as null.
            classes: the classes that tags and instances may have; None: any.

        Raises:
            ShardError: the row contradicts itself, its image or the classes; the text names the image.
        """
        size = row["height"], row["width"]
        entries = row.get("instances")
        instances = None if entries is None else tuple(_instance(row, index, size) for index in range(len(entries)))
        parsed = cls(
            image_id=row["image_id"],
            height=size[0],
            width=size[1],
            label=row.get("label"),
            instances=instances,
            tags=tuple(row.get("tags") or ()),
            undetected_tags=None if row.get("undetected_tags") is None else tuple(row["undetected_tags"]),
            status=row["status"],
            error=row.get("error"),
        )
        if parsed.status not in STATUSES:
            raise ShardError(f"image {parsed.image_id}: its status is {parsed.status!r}, not one of {STATUSES}")
        if classes is not None:
            parsed.check_classes(classes)
        return parsed

    @classmethod
    def failure(cls, row: Mapping[str, Any], error: str) -> LabelRow:
        """Return the failed row of an image.

        Args:
            row: a row of an image shard or label file: image_id, height, width and tags.
            error: stage and reason.
        """
        return cls(
            image_id=row["image_id"],
            height=row["height"],
            width=row["width"],
            tags=tuple(row["tags"]),
            status="failed",
            error=error,
        )

    def to_row(self) -> dict[str, Any]:
        """Return Python values by column of LABEL_SCHEMA."""
        return {
            "image_id": self.image_id,
            "height": self.height,
            "width": self.width,
            "label": self.label,
            "instances": None if self.instances is None else [instance.to_row() for instance in self.instances],
            "tags": list(self.tags),
            "undetected_tags": None if self.undetected_tags is None else list(self.undetected_tags),
            "status": self.status,
            "error": self.error,
        }

    @property
    def failed(self) -> bool:
        """Return whether the image has no label."""
        return self.status == "failed" or self.label is None

    def label_map(self) -> np.ndarray:
        """Return the (height, width) uint8 or uint16 class ids of an image that has not failed.

        Raises:
            ShardError: the PNG is damaged or of another size than the image; names the image.
        """
        assert self.label is not None, "a failed image has no label"
        try:
            label = decode_label(self.label, max_pixels=self.height * self.width)
            check_label_size(label, (self.height, self.width))
        except ImageError as error:
            raise ShardError(f"the label of image {self.image_id} cannot be read: {error}. Label it again.") from error
        return label

    def check_classes(self, classes: ClassSet) -> None:
        """Raise a ShardError unless every tag and every instance is of one of the classes."""
        for index, instance in enumerate(self.instances or ()):
            if instance.class_id not in classes.by_id:
                raise ShardError(
                    f"image {self.image_id}: instance {index}: no class has the id {instance.class_id}. Label it again."
                )
        for tag in (*self.tags, *(self.undetected_tags or ())):
            if tag not in classes.by_name:
                raise ShardError(f"image {self.image_id}: tag {tag!r} is no class of '{classes.name}'. Label it again.")


def _instance(row: Mapping[str, Any], index: int, size: tuple[int, int]) -> Instance:
    try:
        return Instance.from_row(row["instances"][index], size)
    except ShardError as error:
        raise ShardError(f"image {row['image_id']}: instance {index}: {error}. Label it again.") from error
