"""Low-resolution mask logits to masks of the original size, by segment-anything's rule.

The rule (`Sam.postprocess_masks`): resize bilinearly to the network's square input, cut off the padding, resize
bilinearly to the original size; positive is inside. This is linear and separable, and all weights are 0 or more. So
rows and columns have one matrix of weights each, and a pixel can be positive only where a positive low-resolution pixel
has weight. On the CPU only these pixels are computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

from wsss_ray.models.device import Compute
from wsss_ray.models.results import MaskCrop

TILE_ROWS, TILE_COLUMNS = 128, 256
"""Size of the tiles on the CPU: small enough for the cache, so that a tile needs few low-resolution pixels."""
DEVICE_PIXELS = 2**24
"""Pixels computed at once on a GPU (float32), but at least one mask."""
LONGEST_SIDE = 2**16
"""Longest side of an image, in pixels. The matrices take a kilobyte per pixel of a side."""


_Cut = tuple[int, int, NDArray[np.bool_], NDArray[np.float32] | None]
"""Top, left, mask and probabilities as in `MaskCrop`; 0 x 0 at (0, 0) where the mask is empty."""


class OriginalSize:
    """Resizes the mask logits of one image to its original size."""

    def __init__(
        self,
        *,
        low_side: int,
        network_side: int,
        resized: tuple[int, int],
        original: tuple[int, int],
        compute: Compute,
        whole: bool = False,
    ) -> None:
        """Store the sizes, all in pixels.

        Args:
            low_side: side of the decoder's masks.
            network_side: side of the network's square input.
            resized: height and width of the image within that square.
            original: height and width of the image.
            compute: device of the logits; the precision must be float32.
            whole: whether whole masks are resized by torch, as always on a GPU.

        Raises:
            ValueError: a side of the image is longer than `LONGEST_SIDE`.
        """
        assert compute.tier == "float32", compute
        if max(original) > LONGEST_SIDE:
            raise ValueError(
                f"the image is {original[1]} x {original[0]} pixels: the segmenter takes sides up to {LONGEST_SIDE}"
            )
        self._low_side, self._network_side, self._resized, self._original = low_side, network_side, resized, original
        self._compute = compute
        self.whole: bool = whole or compute.device.type != "cpu"
        """Whether whole masks are resized by torch."""
        self._axes: tuple[_Axis, _Axis] | None = None

    def crops_of(
        self, logits: Tensor, *, boxes: Sequence[int], scores: Sequence[float], probabilities: bool
    ) -> Iterator[MaskCrop]:
        """Yield the masks cut to their smallest rectangles, in order; each is computed when it is needed.

        Args:
            logits: (n, low_side, low_side) float32.
            boxes: index of each mask's box.
            scores: score of each mask.
            probabilities: whether masks carry their probabilities.
        """
        cuts = self._cuts_of(logits, probabilities=probabilities)
        for (top, left, mask, chances), box_index, score in zip(cuts, boxes, scores, strict=True):
            yield MaskCrop(box_index=box_index, top=top, left=left, mask=mask, score=score, probability=chances)

    def _cuts_of(self, logits: Tensor, *, probabilities: bool) -> Iterator[_Cut]:
        if self.whole:
            for large in self.resized(logits):
                yield from self._by_torch(large, probabilities=probabilities)
        else:
            positive = logits > 0
            in_rows, in_columns = positive.any(2).numpy(), positive.any(1).numpy()
            for index, low in enumerate(logits):
                yield self._by_tiles(low, in_rows[index], in_columns[index], probabilities=probabilities)

    def resized(self, logits: Tensor) -> Iterator[Tensor]:
        """Yield the logits (m, H, W) of the original image, by the rule itself, for as many masks as memory allows."""
        square, (height, width) = (self._network_side, self._network_side), self._resized
        at_once = max(1, DEVICE_PIXELS // max(self._original[0] * self._original[1], self._network_side**2))
        for part in logits.split(at_once):
            with self._compute.running():
                large = functional.interpolate(part[:, None], square, mode="bilinear", align_corners=False)
                large = large[..., :height, :width]
                large = functional.interpolate(large, self._original, mode="bilinear", align_corners=False)[:, 0]
            yield large

    def _by_torch(self, large: Tensor, *, probabilities: bool) -> list[_Cut]:
        """Return the masks of resized logits. Only their smallest rectangles are copied from the device, at once."""
        with self._compute.running():
            inside = large > 0
            in_rows, in_columns = inside.any(2).cpu().numpy(), inside.any(1).cpu().numpy()
            spans = [(span(rows), span(columns)) for rows, columns in zip(in_rows, in_columns, strict=True)]
            masks = _rectangles(inside, spans)
            chances = _rectangles(large.sigmoid(), spans) if probabilities else [None] * len(masks)
        return [
            (rows.start, columns.start, mask, chance)
            for (rows, columns), mask, chance in zip(spans, masks, chances, strict=True)
        ]

    def _by_tiles(
        self,
        low: Tensor,
        in_rows: NDArray[np.bool_],
        in_columns: NDArray[np.bool_],
        *,
        probabilities: bool,
    ) -> _Cut:
        """Return one mask; only pixels that can be positive are computed.

        Args:
            low: (low_side, low_side) logits.
            in_rows: (low_side,) whether a row has a positive logit.
            in_columns: (low_side,) whether a column has one.
            probabilities: whether to return the probabilities.
        """
        with self._compute.running():
            if self._axes is None:
                self._axes = (self._axis(0), self._axis(1))
            rows, columns = self._axes
            top, bottom = rows.reached(in_rows)
            left, right = columns.reached(in_columns)
            mask = np.zeros((bottom - top, right - left), np.bool_)
            chances = np.zeros(mask.shape, np.float32) if probabilities else None
            for column in _slices(left, right, TILE_COLUMNS):
                low_columns, column_weights = columns.weights_of(column)
                strip = low[:, low_columns] @ column_weights.t()
                for row in _slices(top, bottom, TILE_ROWS):
                    low_rows, row_weights = rows.weights_of(row)
                    tile = row_weights @ strip[low_rows]
                    target = np.s_[row.start - top : row.stop - top, column.start - left : column.stop - left]
                    mask[target] = (tile > 0).numpy()
                    if chances is not None:
                        chances[target] = tile.sigmoid().numpy()
        return _cut(mask, chances, top=top, left=left)

    def _axis(self, axis: int) -> _Axis:
        """Return the weights along one axis: the identity, interpolated, so that they are rounded as in the rule."""
        weights = torch.eye(self._low_side)[None]
        weights = functional.interpolate(weights, self._network_side, mode="linear", align_corners=False)
        weights = weights[..., : self._resized[axis]]
        weights = functional.interpolate(weights, self._original[axis], mode="linear", align_corners=False)
        return _Axis(weights[0].t().contiguous())


class _Axis:
    """Weights (pixels of a side, low_side) of the low-resolution pixels in the original pixels."""

    def __init__(self, weights: Tensor) -> None:
        self._weights = weights
        has_weight = (weights > 0).numpy()
        # both are sorted in ascending order
        self._first = has_weight.argmax(1)
        self._last = has_weight.shape[1] - 1 - has_weight[:, ::-1].argmax(1)

    def reached(self, positive: NDArray[np.bool_]) -> tuple[int, int]:
        """Return start and stop of the pixels that can be positive, given the positive low-resolution pixels."""
        indices = np.flatnonzero(positive)
        if not len(indices):
            return 0, 0
        start = int(np.searchsorted(self._last, indices[0], side="left"))
        stop = int(np.searchsorted(self._first, indices[-1], side="right"))
        return start, max(start, stop)

    def weights_of(self, pixels: slice) -> tuple[slice, Tensor]:
        """Return the low-resolution pixels that have weight in a range of pixels, and their weights."""
        low = slice(int(self._first[pixels.start]), int(self._last[pixels.stop - 1]) + 1)
        return low, self._weights[pixels, low]


def _slices(start: int, stop: int, step: int) -> Iterator[slice]:
    for first in range(start, stop, step):
        yield slice(first, min(first + step, stop))


def span(positive: ArrayLike) -> slice:
    """Return the slice from the first positive element to the last."""
    indices = np.flatnonzero(positive)
    return slice(int(indices[0]), int(indices[-1]) + 1) if len(indices) else slice(0, 0)


def _rectangles(pictures: Tensor, spans: Sequence[tuple[slice, slice]]) -> list[NDArray[Any]]:
    """Return a rectangle of each of (n, H, W) images. All are copied from the device at once."""
    parts = [picture[span] for picture, span in zip(pictures, spans, strict=True)]
    flat = torch.cat([part.reshape(-1) for part in parts]).cpu().numpy()
    ends = np.cumsum([part.numel() for part in parts])
    pieces = zip(np.split(flat, ends[:-1]), parts, strict=True)
    return [piece.reshape(part.shape).copy() for piece, part in pieces]  # a view would keep all of them in memory


def _cut(mask: NDArray[np.bool_], probability: NDArray[np.float32] | None, *, top: int, left: int) -> _Cut:
    rows, columns = span(mask.any(1)), span(mask.any(0))
    if rows.start == rows.stop:
        top = left = 0
    chances = None if probability is None else probability[rows, columns].copy()
    return top + rows.start, left + columns.start, mask[rows, columns].copy(), chances  # a view would keep it all
