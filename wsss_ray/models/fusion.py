"""Joining the instance masks of an image into one label map (paper, 3.3).

Every mask offers each of its pixels a key, and the largest key wins. A key is the painting rule's priority and, as ties
go to the later query, the mask's order. A maximum depends neither on the order in which masks come nor on how they are
grouped, so masks can be joined as they leave the segmenter and need not be kept.

Where the priority differs by pixel (`prob`), the map of keys has 64 bits a pixel. Elsewhere a mask has one key, and the
map holds its rank among the others' keys in 16 bits, a quarter of the memory to pass through.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsss_ray.models.results import Detections, MaskCrop

Paint = Literal["detection", "score", "area", "prob"]
LabelDtype = type[np.uint8] | type[np.uint16]
LabelMap = NDArray[np.uint8] | NDArray[np.uint16]
LARGEST = 2**32 - 1
RANKS = 2**16
STEP = 32
"""How far a key that is above or below all others stays from the next, so that many can follow."""


class Canvas:
    """The label map of one image while its masks come in.

    paint: `detection`, the later query wins (published); `score`, the higher detector score; `area`, the smaller mask;
    `prob`, per pixel the higher detector score times mask probability. Ties go to the later query.
    """

    def __init__(self, height: int, width: int, *, background_id: int, dtype: LabelDtype, paint: Paint) -> None:
        """Start with background alone; `dtype` is that of the label map, which must hold every class id."""
        self._paint = paint
        self._dtype, self._largest_id = np.dtype(dtype), np.iinfo(dtype).max
        self._ranks = None if paint == "prob" else Ranks()
        self._keys = np.zeros((height, width), np.uint64 if self._ranks is None else np.uint16)
        self._orders: set[int] = set()
        self.label: LabelMap = np.full((height, width), self._checked(background_id), self._dtype)
        """(H, W) class ids of the masks so far, background where there is none."""

    def add(self, crop: MaskCrop, *, class_id: int, score: float, order: int) -> None:
        """Join one mask.

        `class_id`: what its pixels become. `score`: the detector's, 0 or more. `order`: its place in the detector's
        query order, counted from 0. Raises ValueError for a crop that reaches outside or lacks the probability that
        `prob` needs, an order that is negative or was there before, a class id that the dtype cannot hold, a score
        that is negative or not finite, and, but for `prob`, more than 2^14 masks of an image.
        """
        height, width = crop.mask.shape
        window = self._keys[crop.top : crop.top + height, crop.left : crop.left + width]
        if window.shape != crop.mask.shape:
            raise ValueError(
                f"a mask of {height} x {width} pixels at row {crop.top}, column {crop.left} reaches outside the image "
                f"of {self._keys.shape[0]} x {self._keys.shape[1]}."
            )
        if order in self._orders or not 0 <= order < LARGEST:
            raise ValueError(f"order {order} of a mask is negative, or another mask of the image has it.")
        if not 0 <= score < np.inf:
            raise ValueError(f"score {score} of mask {order} is negative or not finite.")
        class_id = self._checked(class_id)
        key = self._key(crop, score, order)
        self._orders.add(order)
        wins = crop.mask & (key > window)
        np.copyto(window, key, where=wins)
        np.copyto(self.label[crop.top : crop.top + height, crop.left : crop.left + width], class_id, where=wins)

    def _key(self, crop: MaskCrop, score: float, order: int) -> NDArray[np.uint64] | np.uint64 | np.uint16:
        """What the mask's pixels are worth, above 0: one number, or one per pixel."""
        priority = self._priority(crop, score)
        if self._ranks is not None:
            return self._ranks.insert((int(priority), order), self._keys)
        return (priority << np.uint64(32)) | np.uint64(order + 1)

    def _priority(self, crop: MaskCrop, score: float) -> NDArray[np.uint64] | np.uint64:
        """What comes before the order: one number for the mask, or one per pixel. Below 2^32."""
        if self._paint == "detection":
            return np.uint64(0)
        if self._paint == "area":
            return np.uint64(LARGEST - np.count_nonzero(crop.mask))
        if self._paint == "score":
            return _sortable(np.float32(score))
        if crop.probability is None:
            raise ValueError('paint "prob" needs the probabilities of masks: segment with probabilities=True.')
        return _sortable(np.float32(score) * crop.probability)

    def _checked(self, class_id: int) -> int:
        if not 0 <= class_id <= self._largest_id:
            raise ValueError(f"class id {class_id} does not fit a label map of {self._dtype.name}.")
        return class_id


class Ranks:
    """Numbers of 16 bits in the order of keys that come one by one; 0 stays below all."""

    def __init__(self) -> None:
        """Start without keys."""
        self._keys: list[tuple[int, int]] = []
        self._ranks: list[int] = []

    def insert(self, key: tuple[int, int], ranks: NDArray[np.uint16]) -> np.uint16:
        """The rank of a key that was not there before.

        Where no number is free between its neighbours, all get others, in the map `ranks`, too. Raises ValueError when
        there are 2^14 keys: up to then every two can have a number between them, and others follow at both ends.
        """
        if len(self._keys) == RANKS // 4:
            raise ValueError(f"an image has more than {len(self._keys)} masks: raise detector.box_threshold.")
        place = bisect.bisect(self._keys, key)
        below, above = self._neighbours(place)
        if above - below < 2:
            self._spread(ranks)
            below, above = self._neighbours(place)
        rank = (below + above) // 2
        self._keys.insert(place, key)
        self._ranks.insert(place, rank)
        return np.uint16(rank)

    def _neighbours(self, place: int) -> tuple[int, int]:
        """Ranks between which a key of this place may have its own."""
        if not self._ranks:
            return 0, RANKS
        below = self._ranks[place - 1] if place > 0 else max(0, self._ranks[0] - 2 * STEP)
        above = self._ranks[place] if place < len(self._ranks) else min(RANKS, self._ranks[-1] + 2 * STEP)
        return below, above

    def _spread(self, ranks: NDArray[np.uint16]) -> None:
        count = len(self._ranks)
        step = RANKS // (2 * count + 2)
        first = (RANKS - step * count) // 2
        spread = list(range(first, first + step * count, step))
        table = np.zeros(RANKS, np.uint16)
        table[self._ranks] = spread
        ranks[...] = table[ranks]
        self._ranks = spread


def fuse(
    detections: Detections,
    crops: Iterable[MaskCrop],
    height: int,
    width: int,
    *,
    paint: Paint,
    background_id: int,
    dtype: LabelDtype,
) -> LabelMap:
    """Join masks of `detections` (each names its box by `box_index`) to a label map (height, width); see `Canvas`."""
    canvas = Canvas(height, width, background_id=background_id, dtype=dtype, paint=paint)
    for crop in crops:
        box = crop.box_index
        canvas.add(crop, class_id=int(detections.class_ids[box]), score=float(detections.scores[box]), order=box)
    return canvas.label


def _sortable(values: NDArray[np.float32] | np.float32) -> NDArray[np.uint64] | np.uint64:
    """Bits of float32 values of 0 or more, which rise as the values do."""
    bits: NDArray[np.uint64] | np.uint64 = (values + np.float32(0)).view(np.uint32).astype(np.uint64)  # -0 becomes 0
    return bits
