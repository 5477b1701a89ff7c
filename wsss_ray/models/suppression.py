"""Join the boxes of several prompts, and apply non-maximum suppression, for any detector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wsss_ray.models.results import Detections


def concatenate(parts: Sequence[Detections]) -> Detections:
    """Return the detections of all parts as one, in their order; none where there are no parts."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Detections.empty()
    return Detections(
        boxes=np.concatenate([part.boxes for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        class_ids=np.concatenate([part.class_ids for part in parts]),
        phrases=tuple(phrase for part in parts for phrase in part.phrases),
    )


def suppress(detections: Detections, *, class_nms: float | None, cross_class_nms: float | None) -> Detections:
    """Return the detections that remain after non-maximum suppression, in their order.

    Args:
        detections: boxes of one image.
        class_nms: IoU above which the lower-scoring of two boxes of one class is dropped; None: off.
        cross_class_nms: the same across classes, applied afterwards; None: off.
    """
    if class_nms is not None:
        kept = [
            indices[_nms(detections, indices, class_nms)]
            for class_id in np.unique(detections.class_ids)
            for indices in [np.flatnonzero(detections.class_ids == class_id)]
        ]
        detections = _take(detections, np.sort(np.concatenate(kept)) if kept else np.zeros(0, np.int64))
    if cross_class_nms is not None:
        kept_all = _nms(detections, np.arange(len(detections)), cross_class_nms)
        detections = _take(detections, np.sort(kept_all))
    return detections


def _nms(detections: Detections, indices: NDArray[np.int64], threshold: float) -> NDArray[np.int64]:
    """Return the positions in `indices` that remain, by descending score."""
    import torch  # noqa: PLC0415 - seconds, and suppression is off by default
    from torchvision.ops import nms  # noqa: PLC0415

    boxes, scores = torch.from_numpy(detections.boxes[indices]), torch.from_numpy(detections.scores[indices])
    kept: NDArray[np.int64] = nms(boxes, scores, threshold).numpy()
    return kept


def _take(detections: Detections, indices: NDArray[np.int64]) -> Detections:
    return Detections(
        boxes=detections.boxes[indices],
        scores=detections.scores[indices],
        class_ids=detections.class_ids[indices],
        phrases=tuple(detections.phrases[index] for index in indices),
    )
