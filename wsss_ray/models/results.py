"""The results of the models while an image is labelled: its boxes (Detections) and the mask of each box (MaskCrop).

They are arrays for computing. The stored form is `shards.instance.Instance`, one box with its run-length encoded mask:
`labelling.fusing.LabelRowBuilder` makes it from a box of `Detections` and its `MaskCrop`, and
`Instance.from_row` is the only parser of stored instances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """Boxes of one image, in the detector's query order (prompt by prompt, query by query)."""

    boxes: NDArray[np.float32]
    """(N, 4) XYXY in pixels of the original image; boxes may reach past its border."""
    scores: NDArray[np.float32]
    """(N,) confidence that the box has its class, 0 to 1. Grounding DINO: the largest sigmoid of the class's tokens."""
    class_ids: NDArray[np.int32]
    """(N,) class ids of the class set; never background."""
    phrases: tuple[str, ...]
    """For each box, the phrase of its class (name, synonym or assist word) that the detector matched."""

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
        """Return the number of boxes."""
        return len(self.phrases)

    @staticmethod
    def empty() -> Detections:
        """Return the detections of an image without boxes."""
        return Detections(
            boxes=np.zeros((0, 4), np.float32),
            scores=np.zeros(0, np.float32),
            class_ids=np.zeros(0, np.int32),
            phrases=(),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskCrop:
    """The mask of one box, cut to a rectangle of the image. Pixels outside the rectangle are not in the mask."""

    box_index: int
    """Index of the box among its image's boxes."""
    top: int
    """Row of the crop's first pixel in the original image."""
    left: int
    """Column of the crop's first pixel in the original image."""
    mask: NDArray[np.bool_]
    """(h, w) pixels at the original size; 0 x 0 for an empty mask."""
    score: float
    """The IoU that the segmenter predicts for the mask."""
    probability: NDArray[np.float32] | None = None
    """(h, w) sigmoid of the mask's logits, 0 to 1; None where no probabilities were requested."""

    def __post_init__(self) -> None:
        """Check shapes, dtypes and the position."""
        assert self.mask.ndim == 2, self.mask.shape
        assert self.mask.dtype == np.bool_, self.mask.dtype
        assert self.top >= 0, self.top
        assert self.left >= 0, self.left
        if self.probability is not None:
            assert self.probability.shape == self.mask.shape, self.probability.shape
            assert self.probability.dtype == np.float32, self.probability.dtype
