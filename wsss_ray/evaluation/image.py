"""Evaluate the label map of one image against its truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsss_ray.evaluation.boundary import boundary_width, count_boundaries
from wsss_ray.evaluation.instances import (
    FOUND_IOU,
    Masks,
    connected_parts,
    count_parts,
    count_recalled,
    group_objects,
    matching_parts,
    without,
)
from wsss_ray.evaluation.tally import EVALUATED, Tally, image_row
from wsss_ray.evaluation.truths import Truth
from wsss_ray.images.header import ImageError
from wsss_ray.images.label_png import check_label_size
from wsss_ray.labels.scores import ClassIndex, Scores, confusion_counts, headline, score


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """The label of one image as class indices."""

    state: str
    """EVALUATED, MISSING or FAILED."""
    indices: np.ndarray
    """(H, W) indices of a ClassIndex; no class in every pixel if there is no usable label."""
    reason: str | None = None
    """Why the label cannot be used."""
    masks: Masks | None = None
    """Masks of the label row's instances; None: the connected parts of the label map count."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageEvaluator:
    """Adds images to a tally. Pickled to Ray tasks."""

    index: ClassIndex
    ignore_id: int
    boundary_ratio: float | None
    """Width of the boundary regions as a share of the diagonal; None: not computed."""
    smallest_object: int | None
    """Fewest pixels of a connected part of the truth that is an object; None: objects are not counted."""

    def no_label(self, size: tuple[int, int], state: str, reason: str | None = None) -> Prediction:
        """Return the prediction of an image of this (height, width) without a usable label."""
        indices = np.full(size, self.index.count, self.index.lookup.dtype)
        return Prediction(state=state, indices=indices, reason=reason)

    def predict(self, label: np.ndarray, size: tuple[int, int], masks: Masks | None = None) -> Prediction:
        """Return the prediction of a label map.

        Args:
            label: (H, W) uint8 or uint16 class ids.
            size: (height, width) of the image.
            masks: masks of the label row's instances, if known.

        Raises:
            ImageError: the map has another size, or ids that are neither a class nor ignore.
        """
        check_label_size(label, size)
        indices = self.index(label)
        unknown = (indices == self.index.count) & (label != self.ignore_id)
        if unknown.any():
            row, column = np.argwhere(unknown)[0]
            raise ImageError(
                f"unknown ids: {label[row, column]} at row {row}, column {column} is no class, and ignore is "
                f"{self.ignore_id}"
            )
        return Prediction(state=EVALUATED, indices=indices, masks=masks)

    def add(
        self, image_id: str, tags: Sequence[str], known: Truth, prediction: Prediction, tally: Tally
    ) -> dict[str, Any]:
        """Add an image to the tally and return its row in IMAGES_SCHEMA."""
        truth = self.index(known.label)
        unknown = np.count_nonzero((truth == self.index.count) & (known.label != self.ignore_id))
        matrix = confusion_counts(truth, prediction.indices, self.index.count)
        tally.unknown_truth += int(unknown)
        tally.matrix += matrix
        if self.boundary_ratio is not None:
            width = boundary_width(truth.shape[0], truth.shape[1], self.boundary_ratio)
            tally.boundary += count_boundaries(truth, prediction.indices, self.index.count, width)
        scores = score(headline(matrix))
        tagged = [self.index.names.index(name, 1) for name in tags]
        _count_tags(tagged, scores, tally)
        if self.smallest_object is not None:
            tally.objects += self._count_objects(tagged, known, truth, prediction)
            tally.by_instances += prediction.state == EVALUATED and prediction.masks is not None
            tally.by_components += prediction.state == EVALUATED and prediction.masks is None
        shown = np.flatnonzero(scores.truth + scores.predicted)
        return image_row(
            image_id,
            prediction.state,
            prediction.reason,
            miou=None if np.isnan(scores.miou) else scores.miou,
            class_ids=[self.index.ids[index] for index in shown],
            truth=scores.truth[shown].tolist(),
            predicted=scores.predicted[shown].tolist(),
            both=scores.intersection[shown].tolist(),
        )

    def _count_objects(
        self, tagged: Sequence[int], known: Truth, truth: np.ndarray, prediction: Prediction
    ) -> np.ndarray:
        """Return (2, C): objects of the tagged classes, and those of them that a mask recalls."""
        assert self.smallest_object is not None, "objects are counted"
        size, count, smallest = truth.shape, self.index.count, self.smallest_object
        indices, masks = prediction.indices, prediction.masks
        if known.objects is not None:
            objects = group_objects(known.objects, self.index.by_id, tagged)
            return count_recalled(objects, matching_parts(indices, objects) if masks is None else masks, size, count)
        ignored = truth == count
        if masks is None:
            return count_parts(truth, np.where(ignored, count, indices), tagged, count, smallest=smallest)
        return count_recalled(connected_parts(truth, tagged, smallest=smallest), without(masks, ignored), size, count)


def _count_tags(tagged: Sequence[int], scores: Scores, tally: Tally) -> None:
    for index in tagged:
        if scores.truth[index] == 0:
            tally.tagged[2, index] += 1
        else:
            tally.tagged[0, index] += 1
            tally.tagged[1, index] += bool(scores.iou[index] >= FOUND_IOU)
