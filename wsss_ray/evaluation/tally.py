"""Sums over evaluated images, and the row that each image gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

EVALUATED, MISSING, FAILED, SKIPPED, NO_TRUTH, BAD_TRUTH = STATES = (
    "evaluated",
    "missing",
    "failed",
    "skipped",
    "no_truth",
    "bad_truth",
)
"""evaluated: by its label. missing, failed: no label or an unusable one, counted as no class in every pixel. skipped:
no label, and not counted. no_truth, bad_truth: without a truth or a usable one, not counted."""

IMAGES_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("miou", pa.float64()),
        pa.field("class_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("truth", pa.list_(pa.int32()), nullable=False),
        pa.field("predicted", pa.list_(pa.int32()), nullable=False),
        pa.field("both", pa.list_(pa.int32()), nullable=False),
    ]
)
"""One image: its state, the reason if it is failed or bad_truth, its own mIoU (over the classes in its truth), and for
the classes in its truth or label, counted as for the headline, the pixels in truth, in prediction, and in both."""


@dataclass(kw_only=True, eq=False)
class Tally:
    """Exact int64 sums over images."""

    matrix: np.ndarray
    """(C + 1, C + 1) pixels: truth down, prediction across, the last of both for pixels of no class."""
    boundary: np.ndarray
    """(3, C) pixels in the boundary regions: of the truth, of the prediction, in both."""
    tagged: np.ndarray
    """(3, C) images tagged with the class: with pixels of it in the truth, of these found, without such pixels."""
    objects: np.ndarray
    """(2, C) objects of tagged classes in the truth, and those recalled by a mask of their own."""
    unknown_truth: int = 0
    """Pixels whose truth is neither a class nor ignore."""
    by_instances: int = 0
    """Images whose masks are the instances of their row."""
    by_components: int = 0
    """Images whose masks are the connected parts of their label."""

    @classmethod
    def zero(cls, count: int) -> Tally:
        """Return the sums of no image, for `count` classes."""
        return cls(
            matrix=np.zeros((count + 1, count + 1), np.int64),
            boundary=np.zeros((3, count), np.int64),
            tagged=np.zeros((3, count), np.int64),
            objects=np.zeros((2, count), np.int64),
        )

    def add(self, other: Tally) -> None:
        """Add the sums of other images."""
        self.matrix += other.matrix
        self.boundary += other.boundary
        self.tagged += other.tagged
        self.objects += other.objects
        self.unknown_truth += other.unknown_truth
        self.by_instances += other.by_instances
        self.by_components += other.by_components


def image_row(image_id: str, state: str, reason: str | None = None, **counts: Any) -> dict[str, Any]:
    """Return the row of an image in IMAGES_SCHEMA; counts that are not given are empty."""
    assert state in STATES
    empty: dict[str, Any] = {"miou": None, "class_ids": [], "truth": [], "predicted": [], "both": []}
    return {"image_id": image_id, "state": state, "reason": reason, **empty, **counts}
