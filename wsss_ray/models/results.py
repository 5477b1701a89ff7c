"""What the models hand on: boxes of an image, and masks of boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """Boxes of one image, in the detector's query order (prompt by prompt, query by query)."""

    boxes: NDArray[np.float32]
    """(N, 4) corners x0, y0, x1, y1 in pixels of the original image; they may reach past its border."""
    scores: NDArray[np.float32]
    """(N,) score of the box's class: the largest sigmoid over the class's tokens, 0 to 1."""
    class_ids: NDArray[np.int32]
    """(N,) class ids of the class set; never background."""
    phrases: tuple[str, ...]
    """N phrases: the one (name, synonym or assist word) whose token scored highest."""

    def __post_init__(self) -> None:
        """Check shapes and dtypes."""
        count = len(self.phrases)
        assert self.boxes.shape == (count, 4), self.boxes.shape
        assert self.boxes.dtype == np.float32, self.boxes.dtype
        assert self.scores.shape == (count,), self.scores.shape
        assert self.scores.dtype == np.float32, self.scores.dtype
        assert self.class_ids.shape == (count,), self.class_ids.shape
        assert self.class_ids.dtype == np.int32, self.class_ids.dtype

    def __len__(self) -> int:
        """Number of boxes."""
        return len(self.phrases)

    @staticmethod
    def empty() -> Detections:
        """No boxes."""
        return Detections(
            boxes=np.zeros((0, 4), np.float32),
            scores=np.zeros(0, np.float32),
            class_ids=np.zeros(0, np.int32),
            phrases=(),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskCrop:
    """The mask of one box, cut to a rectangle outside which no pixel of the original image belongs to it."""

    box_index: int
    """Index of the box among its image's boxes."""
    top: int
    """Row of the crop's first pixel in the original image."""
    left: int
    """Column of the crop's first pixel in the original image."""
    mask: NDArray[np.bool_]
    """(h, w) pixels of the original size; 0 x 0 for an empty mask."""
    score: float
    """SAM's predicted IoU of the mask."""
    probability: NDArray[np.float32] | None = None
    """(h, w) sigmoid of the mask's logits, 0 to 1; only when asked for."""

    def __post_init__(self) -> None:
        """Check shapes, dtypes and places."""
        assert self.mask.ndim == 2, self.mask.shape
        assert self.mask.dtype == np.bool_, self.mask.dtype
        assert self.top >= 0, self.top
        assert self.left >= 0, self.left
        if self.probability is not None:
            assert self.probability.shape == self.mask.shape, self.probability.shape
            assert self.probability.dtype == np.float32, self.probability.dtype
