"""Joining the instance masks of an image into one label map (paper, 3.3).

Each mask has a key for each of its pixels, and the pixel gets the class of the largest key. A key is the priority by
the fusion rule, then the mask's order, because ties go to the later query. A maximum does not depend on the order or
grouping of the masks, so masks are joined as they leave the segmenter and are not kept in memory.

Where a rule needs the masks' probabilities (`prob`), the priority differs by pixel, and the map of keys has 64 bits per
pixel. Otherwise a mask has one key, and the map has its rank among all keys in 16 bits, a quarter of the memory
traffic.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from wsss_ray.models.protocols import FusionRule, LabelDtype, LabelMap
from wsss_ray.models.registries import FUSION_RULES
from wsss_ray.models.results import MaskCrop

LARGEST = 2**32 - 1
RANKS = 2**16
STEP = 32
"""Distance of a rank above or below all others from the next one, which leaves room for later keys."""


class LabelMapBuilder(FusionRule):
    """A fusion rule in which each pixel goes to the mask of the highest priority; ties go to the later query.

    A subclass defines `priority`, which also orders the separate objects of an export.
    """

    def __init__(self, height: int, width: int, *, background_id: int, dtype: LabelDtype) -> None:
        """Create a label map of background; `dtype` must hold every class id."""
        self._dtype, self._largest_id = np.dtype(dtype), np.iinfo(dtype).max
        self._ranks = None if self.needs_probabilities else Ranks()
        self._keys = np.zeros((height, width), np.uint64 if self._ranks is None else np.uint16)
        self._orders: set[int] = set()
        self.label: LabelMap = np.full((height, width), self._checked(background_id), self._dtype)

    @classmethod
    def priority(cls, score: float, area: int) -> int:
        """Return the priority of a mask, at least 0 and below 2^32.

        Args:
            score: the detector's score of its box, 0 or more.
            area: pixels of the mask.
        """
        raise NotImplementedError

    @classmethod
    def pixel_priority(cls, score: float, probability: NDArray[np.float32]) -> NDArray[np.uint64]:
        """Return the priority of each pixel of a mask, where the rule needs probabilities."""
        raise NotImplementedError

    @classmethod
    def painting_order(cls, scores: Sequence[float], areas: Sequence[int]) -> list[int]:
        """Return the indices of an image's masks from the lowest priority to the highest."""
        return sorted(range(len(scores)), key=lambda index: cls.priority(scores[index], areas[index]))

    def add(self, crop: MaskCrop, *, class_id: int, score: float, order: int) -> None:
        """Add a mask; arguments as `FusionRule.add`.

        Raises:
            ValueError: the crop reaches outside the image or lacks the probabilities that the rule needs; the order is
                negative or was used before; the dtype cannot hold the class id; the score is negative or not finite; or
                there are more than 2^14 masks, where the rule gives one priority per mask.
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
        if self.needs_probabilities and crop.probability is None:
            raise ValueError(
                f"the fusion rule {type(self).__name__} needs the probabilities of masks: segment with "
                "probabilities=True."
            )
        key = self._key(crop, score, order)
        self._orders.add(order)
        wins = crop.mask & (key > window)
        np.copyto(window, key, where=wins)
        np.copyto(self.label[crop.top : crop.top + height, crop.left : crop.left + width], class_id, where=wins)

    def _key(self, crop: MaskCrop, score: float, order: int) -> NDArray[np.uint64] | np.uint64 | np.uint16:
        """Return the key of the mask's pixels, above 0: one number, or one per pixel."""
        if self._ranks is not None:
            return self._ranks.insert((self.priority(score, int(np.count_nonzero(crop.mask))), order), self._keys)
        assert crop.probability is not None, "add checks it"
        return (self.pixel_priority(score, crop.probability) << np.uint64(32)) | np.uint64(order + 1)

    def _checked(self, class_id: int) -> int:
        if not 0 <= class_id <= self._largest_id:
            raise ValueError(f"class id {class_id} does not fit a label map of {self._dtype.name}.")
        return class_id


@FUSION_RULES.register("detection")
class PaintByDetection(LabelMapBuilder):
    """The later query is painted over the earlier one, as published."""

    @classmethod
    def priority(cls, score: float, area: int) -> int:
        """Return 0: the order alone decides."""
        del score, area
        return 0


@FUSION_RULES.register("score")
class PaintByScore(LabelMapBuilder):
    """The higher detector score is painted over the lower one."""

    @classmethod
    def priority(cls, score: float, area: int) -> int:
        """Return the score's rank among all float32 values."""
        del area
        return int(_sortable(np.array([score], np.float32))[0])


@FUSION_RULES.register("area")
class PaintByArea(LabelMapBuilder):
    """The smaller mask is painted over the larger one."""

    @classmethod
    def priority(cls, score: float, area: int) -> int:
        """Return a number that falls with the mask's pixels."""
        del score
        return LARGEST - area


@FUSION_RULES.register("prob")
class PaintByProbability(PaintByScore):
    """Per pixel, the higher detector score times mask probability wins; in exports, which have none, the score."""

    needs_probabilities: ClassVar[bool] = True

    @classmethod
    def pixel_priority(cls, score: float, probability: NDArray[np.float32]) -> NDArray[np.uint64]:
        """Return the rank of score times probability among all float32 values, per pixel."""
        return _sortable(np.float32(score) * probability)


class Ranks:
    """Assigns 16-bit ranks to keys that arrive one by one, in the order of the keys; 0 is below all ranks."""

    def __init__(self) -> None:
        """Create the ranks without keys."""
        self._keys: list[tuple[int, int]] = []
        self._ranks: list[int] = []

    def insert(self, key: tuple[int, int], ranks: NDArray[np.uint16]) -> np.uint16:
        """Return the rank of a new key.

        Where no rank is free between its neighbors, all keys get new ranks, in the map too. Up to 2^14 keys there is
        room between any two of them and at both ends.

        Args:
            key: priority and order of the mask.
            ranks: (H, W) map of ranks, which is updated in place where ranks change.

        Raises:
            ValueError: there are 2^14 keys already.
        """
        if len(self._keys) == RANKS // 4:
            raise ValueError(f"an image has more than {len(self._keys)} masks: raise detector.box_threshold.")
        index = bisect.bisect(self._keys, key)
        below, above = self._neighbors(index)
        if above - below < 2:
            self._spread(ranks)
            below, above = self._neighbors(index)
        rank = (below + above) // 2
        self._keys.insert(index, key)
        self._ranks.insert(index, rank)
        return np.uint16(rank)

    def _neighbors(self, index: int) -> tuple[int, int]:
        """Return the ranks between which a key at this index can have its rank."""
        if not self._ranks:
            return 0, RANKS
        below = self._ranks[index - 1] if index > 0 else max(0, self._ranks[0] - 2 * STEP)
        above = self._ranks[index] if index < len(self._ranks) else min(RANKS, self._ranks[-1] + 2 * STEP)
        return below, above

    def _spread(self, ranks: NDArray[np.uint16]) -> None:
        """Give all keys new ranks with equal distances, in the map too."""
        count = len(self._ranks)
        step = RANKS // (2 * count + 2)
        first = (RANKS - step * count) // 2
        spread = list(range(first, first + step * count, step))
        table = np.zeros(RANKS, np.uint16)
        table[self._ranks] = spread
        ranks[...] = table[ranks]
        self._ranks = spread


def _sortable(values: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Return the bits of float32 values of 0 or more; they rise as the values do."""
    bits: NDArray[np.uint64] = (values + np.float32(0)).view(np.uint32).astype(np.uint64)  # -0 becomes 0
    return bits
