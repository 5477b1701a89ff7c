"""Metrics of label maps in pure NumPy: int64 counts, and nothing is rounded before the last division.

Index of a class: 0 is the background, 1 to C - 1 are the classes in their set's order, and C is the index of every id
that is none of them (ignore above all). A count matrix is (C + 1, C + 1), truth down, prediction
across, C the last of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from wsss_ray.classes import ClassSet


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassIndex:
    """Map class ids to indices."""

    names: tuple[str, ...]
    """Names by index; the first is "background"."""
    ids: tuple[int, ...]
    """Class ids by index."""
    lookup: np.ndarray
    """(65536,) uint8, or uint16 for more than 254 classes: index by id."""

    @classmethod
    def of(cls, classes: ClassSet) -> ClassIndex:
        """Return the index of a class set."""
        ids = (classes.background_id, *(entry.id for entry in classes.classes))
        lookup = np.full(65536, len(ids), np.uint8 if len(ids) < 256 else np.uint16)
        lookup[list(ids)] = np.arange(len(ids))
        return cls(names=("background", *classes.names), ids=ids, lookup=lookup)

    @cached_property
    def by_id(self) -> dict[int, int]:
        """Index by class id, without the background."""
        return {class_id: index for index, class_id in enumerate(self.ids) if index > 0}

    @property
    def count(self) -> int:
        """C: number of classes, the background included; also the index of everything else."""
        return len(self.ids)

    def __call__(self, label: np.ndarray) -> np.ndarray:
        """Return the (H, W) indices of a (H, W) uint8 or uint16 label map."""
        return self.lookup.take(label)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """Metrics of a count matrix. Vectors are (C,) float64 from 0 to 1, NaN where the divisor is 0."""

    truth: np.ndarray
    """(C,) int64: pixels of the truth."""
    predicted: np.ndarray
    """(C,) int64: pixels of the prediction, where there is truth."""
    intersection: np.ndarray
    """(C,) int64: pixels of both."""

    @property
    def present(self) -> np.ndarray:
        """(C,) bool: the classes that the truth holds; means are over these."""
        return self.truth > 0

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union; NaN for classes that the truth does not hold."""
        union = self.truth + self.predicted - self.intersection
        return divide(self.intersection, np.where(self.present, union, 0))

    @property
    def precision(self) -> np.ndarray:
        """Share of the predicted pixels that are correct."""
        return divide(self.intersection, self.predicted)

    @property
    def recall(self) -> np.ndarray:
        """Share of the truth's pixels that are predicted."""
        return divide(self.intersection, self.truth)

    @property
    def miou(self) -> float:
        """Mean IoU over the classes present in the truth, background included; NaN where there is no truth."""
        return mean(self.iou)

    @property
    def mean_accuracy(self) -> float:
        """Mean recall over the classes present in the truth."""
        return mean(self.recall)

    @property
    def pixel_accuracy(self) -> float:
        """Share of all pixels with truth that are predicted correctly."""
        return float(divide(self.intersection.sum(), self.truth.sum()))

    @property
    def frequency_weighted_iou(self) -> float:
        """IoU of the present classes, weighted by their pixels in the truth."""
        present = self.present
        return float(divide((self.truth * np.where(present, self.iou, 0)).sum(), self.truth.sum()))


def confusion_counts(truth: np.ndarray, prediction: np.ndarray, count: int) -> np.ndarray:
    """Return the (count + 1, count + 1) int64 confusion matrix of two (H, W) maps of indices, truth down."""
    cells = truth.astype(np.intp)
    cells *= count + 1
    cells += prediction
    return np.bincount(cells.ravel(), minlength=(count + 1) ** 2).reshape(count + 1, count + 1)


def headline(matrix: np.ndarray) -> np.ndarray:
    """Return the (C, C) counts of the standard mIoU: no pixels without truth, predictions of no class as background."""
    counts = matrix[:-1, :-1].copy()
    counts[:, 0] += matrix[:-1, -1]
    return counts


def dropped(matrix: np.ndarray) -> np.ndarray:
    """Return the (C, C) counts of the pixels that have a truth and a predicted class."""
    return matrix[:-1, :-1]


def score(counts: np.ndarray) -> Scores:
    """Return the metrics of (C, C) counts, truth down."""
    return Scores(truth=counts.sum(axis=1), predicted=counts.sum(axis=0), intersection=np.diagonal(counts).copy())


def divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return `part` / `whole` in float64, NaN where `whole` is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole != 0)


def mean(values: np.ndarray) -> float:
    """Return the mean of the values that are numbers; NaN if there is none."""
    numbers = values[~np.isnan(values)]
    return float(numbers.mean()) if numbers.size else float("nan")
