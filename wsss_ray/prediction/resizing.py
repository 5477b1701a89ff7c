"""Shrink images before prediction, and enlarge predictions to the size of their image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def shrink(image: Pixels, longest_side: int | None) -> Pixels:
    """Return an (H, W, 3) uint8 image whose longest side is at most `longest_side` pixels."""
    if longest_side is None or max(image.shape[:2]) <= longest_side:
        return image
    height, width = (max(1, round(side * longest_side / max(image.shape[:2]))) for side in image.shape[:2])
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def enlarge_label(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an (h, w) label map at the (height, width) `size`, by the nearest pixel."""
    if label.shape == size:
        return label
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, label.shape, strict=True)
    )
    return label[rows[:, None], columns]


def enlarge_scores(scores: Pixels, size: tuple[int, int]) -> Pixels:
    """Return an (h, w) uint8 plane of probabilities at the (height, width) `size`, interpolated."""
    if scores.shape == size:
        return scores
    return np.array(Image.fromarray(scores).resize((size[1], size[0]), Image.Resampling.BILINEAR))
