"""Boundary IoU (Cheng, Girshick, Dollar, Berg, Kirillov: "Boundary IoU", CVPR 2021), for semantic label maps.

The boundary region of a class is the part of its mask within d pixels of the mask's outline. d is 2 % of the image
diagonal (their dilation ratio), rounded, at least 1. The distance is that of d erosions with a 3 x 3 square; pixels
outside of the image belong to no mask. The measure is the IoU of the two regions. Here a mask covers a whole class, and
intersections and unions are summed over all images before the division, as for the mIoU.

Pixels whose truth is ignored belong to no mask of either side. A prediction that is correct wherever there is truth
scores exactly 1, whatever it predicts inside a border of ignored pixels.
"""

from __future__ import annotations

import math

import numpy as np

DEFAULT_RATIO = 0.02


def boundary_width(height: int, width: int, ratio: float = DEFAULT_RATIO) -> int:
    """Return the width in pixels of the boundary region in an image."""
    return max(1, round(ratio * math.hypot(height, width)))


def boundary_region(label: np.ndarray, width: int) -> np.ndarray:
    """Return (H, W) bool: pixels of a (H, W) label map within `width` pixels of another value or of the image's edge.

    It is the union of the boundary regions of all values: a pixel is outside of it if the square of 2 * width + 1
    pixels around it holds one value. A square holds one value if no two neighbours in it differ.
    """
    height, columns = label.shape
    beside = np.zeros((height, columns + 1 + 2 * (width - 1)), dtype=bool)  # whether pixels x - 1 and x differ
    beside[:, width - 1 : width + columns] = True
    np.not_equal(label[:, 1:], label[:, :-1], out=beside[:, width : width + columns - 1])
    below = np.zeros((height + 1 + 2 * (width - 1), columns), dtype=bool)  # whether pixels y - 1 and y differ
    below[width - 1 : width + height] = True
    np.not_equal(label[1:], label[:-1], out=below[width : width + height - 1])
    beside = _any_of_next(beside.T, 2 * width).T
    below = _any_of_next(below, 2 * width)
    whole = 2 * width + 1
    beside = _any_of_next(np.pad(beside, ((width, width), (0, 0))), whole)
    below = _any_of_next(np.pad(below, ((0, 0), (width, width))).T, whole).T
    return beside | below


def _any_of_next(flags: np.ndarray, size: int) -> np.ndarray:
    """Return (N - size + 1, ...) bool: whether any of `size` flags is set, from each position along the first axis."""
    covered = 1
    while covered < size:
        step = min(covered, size - covered)
        flags = flags[:-step] | flags[step:]
        covered += step
    return flags


def count_boundaries(truth: np.ndarray, prediction: np.ndarray, count: int, width: int) -> np.ndarray:
    """Count the pixels in the boundary regions of an image.

    Args:
        truth: (H, W) class indices, `count` where there is no truth.
        prediction: (H, W) class indices; `count` (no class) counts as the background.
        count: number of classes.
        width: from `boundary_width`.

    Returns:
        (3, count) int64: pixels per class in the truth's region, in the prediction's, and in both.
    """
    ignored = truth == count
    prediction = np.where(prediction == count, 0, prediction)
    prediction[ignored] = count
    truth_region = boundary_region(truth, width)
    predicted_region = boundary_region(prediction, width)
    both = truth_region & predicted_region & (truth == prediction)
    return np.stack(
        [
            np.bincount(label[region], minlength=count + 1)[:count]
            for label, region in ((truth, truth_region), (prediction, predicted_region), (truth, both))
        ]
    )
