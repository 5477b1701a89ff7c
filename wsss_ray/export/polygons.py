"""Trace each mask as one polygon, and count the lost pixels. The only module that needs OpenCV.

A polygon runs through the centers of the mask's outer pixels, as OpenCV traces and fills it: `cv2.fillPoly` gives a
mask of one piece without holes back pixel for pixel. One polygon cannot have holes, so they are filled. Several pieces
are joined by bridges of no width, as in ultralytics' conversion of COCO, which fill as lines of one pixel; here they
are the shortest bridges that join all pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial import Delaunay


@dataclass(frozen=True, kw_only=True, eq=False)
class Polygon:
    """The polygon of a mask. Pixels are counted as `cv2.fillPoly` fills it."""

    points: np.ndarray
    """(N, 2) int32 pixel columns and rows of its corners, N at least 3; masks of one or two pixels repeat corners."""
    pieces: int
    """Pieces of the mask, joined by bridges."""
    mask_pixels: int
    hole_pixels: int
    """Pixels of filled holes, with pieces inside of them."""
    other_pixels: int
    """Other pixels outside of the mask: bridges, and parts of a simplified outline."""
    lost_pixels: int
    """Pixels of the mask outside of the polygon, where a simplified outline runs inside of the mask."""


def trace(mask: np.ndarray, *, tolerance: float = 0.0) -> Polygon | None:
    """Return the polygon of an (H, W) bool mask, None if it is empty.

    Args:
        mask: pixels to outline.
        tolerance: largest distance in pixels of a simplified outline (Douglas-Peucker); 0: every corner is kept.
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
    """Return (M, 2) int32: one closed chain through all outlines, each (n, 2), joined by the shortest bridges.

    A bridge runs forward and back on the same line, so it encloses nothing.
    """
    if len(outlines) == 1:
        return outlines[0].astype(np.int32)
    points = np.concatenate(outlines).astype(np.int32)
    # Neighbors in the chain, by index; each outline starts as a circle.
    after, before = list(range(1, len(points) + 1)), list(range(-1, len(points) - 1))
    end = 0
    for outline in outlines:
        start, end = end, end + len(outline)
        after[end - 1], before[start] = start, end - 1
    owners = np.repeat(np.arange(len(outlines)), [len(outline) for outline in outlines])
    copies = list(range(len(points)))
    for here, there in _bridges(points, owners):
        # here -> there -> around the other circle -> a copy of there -> a copy of here -> onwards.
        there_again, here_again = len(copies), len(copies) + 1
        copies += [there, here]
        last, following = before[there], after[here]
        after[here], before[there] = there, here
        after[last] = there_again
        after += [here_again, following]
        before += [last, there_again]
        before[following] = here_again
    chain = [0]
    while (index := after[chain[-1]]) != 0:
        chain.append(index)
    assert len(chain) == len(copies), "the chain passes every corner"
    return points[np.array(copies)[chain]]


def _bridges(points: np.ndarray, owners: np.ndarray) -> Iterator[tuple[int, int]]:
    """Iterate over pairs of indices that join the points of all owners: a minimum spanning tree.

    The shortest connections of points are among the edges of their Delaunay triangulation.
    """
    # Three far corners, because points in one line have no triangulation.
    reach = 4 * int(points.max() + 1)
    corners = np.array([[-reach, -reach], [reach * 3, -reach], [-reach, reach * 3]])
    triangles = Delaunay(np.concatenate([points, corners])).simplices
    edges = np.unique(np.sort(triangles[:, [[0, 1], [1, 2], [0, 2]]].reshape(-1, 2), axis=1), axis=0)
    edges = edges[edges[:, 1] < len(points)]
    edges = edges[owners[edges[:, 0]] != owners[edges[:, 1]]]
    lengths = ((points[edges[:, 0]].astype(np.int64) - points[edges[:, 1]]) ** 2).sum(axis=1)
    groups = list(range(int(owners[-1]) + 1))

    def group_of(owner: int) -> int:
        while groups[owner] != owner:
            groups[owner] = owner = groups[groups[owner]]
        return owner

    for here, there in edges[np.argsort(lengths, kind="stable")].tolist():
        one, other = group_of(int(owners[here])), group_of(int(owners[there]))
        if one != other:
            groups[one] = other
            yield here, there
