"""Interval of the mIoU: the percentile bootstrap over images."""

from __future__ import annotations

import numpy as np


def miou_interval(
    image: np.ndarray, class_index: np.ndarray, counts: np.ndarray, *, images: int, resamples: int, seed: int
) -> tuple[float, float] | None:
    """Return the 95 % interval of the mIoU: 2.5th and 97.5th percentile over resamples of the images with replacement.

    Each resample is scored as the whole set: counts summed, mean over the classes present in its truth.

    Args:
        image: (E,) numbers of images, 0 to `images` - 1; entry e is one class in one image.
        class_index: (E,) its class.
        counts: (3, E) int64, its pixels in the truth, in the prediction, and in both.
        images: number of images, with those without an entry.
        resamples: number of resamples.
        seed: of the resampling; the same entries and seed give the same interval.

    Returns:
        Low and high, 0 to 1; None for fewer than two images or no resamples.
    """
    if images < 2 or resamples == 0 or image.size == 0:
        return None
    order = np.argsort(class_index, kind="stable")
    owner = image[order]
    values = counts[:, order].astype(np.int64)
    starts = np.flatnonzero(np.diff(class_index[order], prepend=-1))
    random = np.random.default_rng(seed)
    scores = np.empty(resamples)
    for index in range(resamples):
        times = np.bincount(random.integers(images, size=images), minlength=images)
        truth, predicted, both = np.add.reduceat(values * times[owner], starts, axis=1)
        present = truth > 0
        iou = both[present] / (truth + predicted - both)[present]
        scores[index] = iou.mean() if iou.size else np.nan
    low, high = np.nanpercentile(scores, [2.5, 97.5])
    return float(low), float(high)
