"""The instance: one box of a detector with the mask that a segmenter made of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from wsss_ray.images.rle import check_counts, decode_mask
from wsss_ray.shards.footers import ShardError


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One box and its mask."""

    class_id: int
    phrase: str
    """Phrase of the prompt that the detector matched."""
    score: float
    """The detector's confidence, 0 to 1."""
    box: tuple[float, float, float, float]
    """The detector's box, XYXY pixels."""
    mask_score: float
    """The IoU that the segmenter predicts for its mask."""
    height: int
    """Height of the image in pixels, as `width`."""
    width: int
    counts: bytes
    """Compressed COCO counts of the mask."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any], size: tuple[int, int]) -> Instance:
        """Parse an entry of a label row's `instances` column.

        Args:
            row: a value of INSTANCE_TYPE.
            size: (height, width) of the image in pixels.

        Raises:
            ShardError: a value is missing or no finite number, or the mask does not fill the image.
        """
        try:
            left, top, right, bottom = row["box"]
            mask = row["mask"]
            instance = cls(
                class_id=row["class_id"],
                phrase=row["phrase"],
                score=row["score"],
                box=(left, top, right, bottom),
                mask_score=row["mask_score"],
                height=mask["height"],
                width=mask["width"],
                counts=mask["counts"],
            )
            finite = all(map(math.isfinite, (instance.score, instance.mask_score, *instance.box)))
        except (TypeError, ValueError, LookupError) as error:
            raise ShardError(f"a value is missing ({error})") from error
        if not finite:
            raise ShardError("its score or box is not a number")
        if (instance.height, instance.width) != size:
            raise ShardError(
                f"its mask is {instance.width} x {instance.height}, the image {size[1]} x {size[0]} (width x height)"
            )
        try:
            check_counts(instance.counts, *size)
        except (TypeError, ValueError) as error:
            raise ShardError(f"its mask: {error}") from error
        return instance

    def to_row(self) -> dict[str, Any]:
        """Return the entry of the `instances` column, a value of INSTANCE_TYPE."""
        return {
            "class_id": self.class_id,
            "phrase": self.phrase,
            "score": self.score,
            "box": list(self.box),
            "mask_score": self.mask_score,
            "mask": {"height": self.height, "width": self.width, "counts": self.counts},
        }

    @property
    def rle(self) -> dict[str, Any]:
        """The mask in the form that pycocotools takes."""
        return {"size": [self.height, self.width], "counts": self.counts}

    @property
    def area(self) -> int:
        """Number of pixels of the mask."""
        return int(coco_mask.area(self.rle))

    def mask(self) -> np.ndarray:
        """Return the (height, width) bool mask."""
        return decode_mask(self.counts, self.height, self.width, max_pixels=self.height * self.width)
