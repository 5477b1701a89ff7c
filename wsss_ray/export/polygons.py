"""Masks as one polygon each, and what that loses. The only module that needs OpenCV.

A polygon runs through the centres of the mask's outer pixels, as OpenCV traces and fills it; filled again by
`cv2.fillPoly`, a mask of one piece without holes is the same pixel for pixel. Holes cannot be told in one polygon and
are filled. Several pieces are joined by bridges of no width, as ultralytics joins COCO's, which fill as lines of one
pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class Polygon:
    """A mask as a polygon. Pixels are counted as `cv2.fillPoly` fills it."""

    points: np.ndarray
    """(N, 2) int32 pixel columns and rows of its corners, N at least 3; corners repeat for masks of a pixel or two."""
    pieces: int
    """Pieces of the mask that bridges join."""
    mask_pixels: int
    hole_pixels: int
    """Pixels of filled holes (with all that lies in them)."""
    other_pixels: int
    """Other pixels that the mask has not: bridges, and a simplified outline outside of the mask."""
    lost_pixels: int
    """Pixels of the mask that the polygon has not: a simplified outline inside of the mask."""


def trace(mask: np.ndarray, *, tolerance: float = 0.0) -> Polygon | None:
    """The polygon of an (H, W) bool mask, None where it is empty.

    Args:
        mask: what to outline.
        tolerance: how far, in pixels, a simplified outline may stray (Douglas-Peucker); 0: no corner is left out.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    top, left = int(rows[0]), int(columns[0])
    crop = np.ascontiguousarray(mask[top : rows[-1] + 1, left : columns[-1] + 1], dtype=np.uint8)
    outlines, _ = cv2.findContours(crop, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    kept = [cv2.approxPolyDP(outline, tolerance, closed=True) for outline in outlines] if tolerance else outlines
    points = _join([outline.reshape(-1, 2) for outline in kept])
    if len(points) < 3:
        points = np.resize(points, (3, 2))
    filled = cv2.fillPoly(np.zeros_like(crop), [points], (1,))
    whole = cv2.drawContours(np.zeros_like(crop), outlines, -1, (1,), cv2.FILLED)
    return Polygon(
        points=points + np.array([left, top], np.int32),
        pieces=len(outlines),
        mask_pixels=int(np.count_nonzero(crop)),
        hole_pixels=int(np.count_nonzero(np.minimum(filled, whole) > crop)),
        other_pixels=int(np.count_nonzero(filled > whole)),
        lost_pixels=int(np.count_nonzero(crop > filled)),
    )


def _join(outlines: Sequence[np.ndarray]) -> np.ndarray:
    """One closed chain of points through all outlines, the longest first, each joined where it comes nearest.

    A bridge goes there and back on the same line, so it encloses nothing.
    """
    first, *others = sorted(outlines, key=lambda outline: (-len(outline), outline.tolist()))
    joined = first
    for outline in others:
        away = joined[:, None].astype(np.int64) - outline[None]
        here, there = np.unravel_index(np.argmin((away**2).sum(axis=-1)), (len(joined), len(outline)))
        joined = np.concatenate([joined[: here + 1], outline[there:], outline[: there + 1], joined[here:]])
    return joined.astype(np.int32)
