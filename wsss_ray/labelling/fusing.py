"""Build the label row of an image from its masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wsss_ray.classes import ClassSet
from wsss_ray.images.label_png import encode_label
from wsss_ray.images.rle import encode_crop
from wsss_ray.labels.decoded_images import Picture, pixels_per_class
from wsss_ray.models.protocols import FusionRule
from wsss_ray.models.results import Detections, MaskCrop
from wsss_ray.shards.columns import LabelColumn
from wsss_ray.shards.instance import Instance
from wsss_ray.shards.label_row import LabelRow


@dataclass(frozen=True, kw_only=True)
class FusedLabel:
    """The label row of an image, and the number of pixels of each class."""

    row: LabelRow
    pixels: list[dict[str, int]] | None = None
    """`class_id` and `pixels` of each class in the label map; None for a failed image."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Values of the extra columns, by name."""

    def to_row(self) -> dict[str, Any]:
        """Return Python values by column of LABELLED_SCHEMA. A failed image has its error and no status yet."""
        return {**self.row.to_row(), "pixels": self.pixels, **self.extra}


class LabelRowBuilder:
    """Joins the masks of one image to its label row. Masks are added in the order of the boxes."""

    def __init__(self, picture: Picture, detections: Detections, classes: ClassSet, rule: type[FusionRule]) -> None:
        """Create a builder without masks.

        Args:
            picture: the decoded image and its row.
            detections: its boxes.
            classes: the class set.
            rule: the fusion rule.
        """
        row = picture.row
        self._picture = picture
        self._detections = detections
        self._classes = classes
        self._instances: list[Instance] = []
        self._label_map = rule(
            row["height"], row["width"], background_id=classes.background_id, dtype=classes.label_dtype
        )

    def add(self, crop: MaskCrop) -> None:
        """Add the mask of the next box."""
        index, row = crop.box_index, self._picture.row
        assert index == len(self._instances), "masks come in the order of the boxes"
        detections = self._detections
        class_id, score = int(detections.class_ids[index]), float(detections.scores[index])
        self._label_map.add(crop, class_id=class_id, score=score, order=index)
        size = {"height": row["height"], "width": row["width"]}
        self._instances.append(
            Instance(
                class_id=class_id,
                phrase=detections.phrases[index],
                score=score,
                box=tuple(detections.boxes[index].tolist()),
                mask_score=crop.score,
                counts=encode_crop(crop.mask, top=crop.top, left=crop.left, **size),
                **size,
            )
        )

    def finish(self, palette: bytes | None, columns: Mapping[str, LabelColumn]) -> FusedLabel:
        """Return the label row, its pixel counts and its extra columns.

        `palette` is 768 bytes of RGB, or None for a grey PNG.
        """
        row = self._picture.row
        if self._picture.error is not None:
            return FusedLabel(row=LabelRow.failure(row, self._picture.error))
        assert len(self._instances) == len(self._detections), "every box has its mask"
        label = self._label_map.label
        ids = {instance.class_id for instance in self._instances}
        found = {self._classes.by_id[class_id].name for class_id in ids}
        label_row = LabelRow(
            image_id=row["image_id"],
            height=row["height"],
            width=row["width"],
            label=encode_label(label, palette=palette),
            instances=tuple(self._instances),
            tags=tuple(row["tags"]),
            undetected_tags=tuple(tag for tag in row["tags"] if tag not in found),
            status="no_tags" if not row["tags"] else "ok" if self._instances else "no_detections",
        )
        return FusedLabel(
            row=label_row,
            pixels=pixels_per_class(label, among={self._classes.background_id, *ids}),
            extra={name: column.value(label_row, label) for name, column in columns.items()},
        )
