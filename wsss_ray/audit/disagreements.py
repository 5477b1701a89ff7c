"""Find where a human label and SAM's masks disagree about a class, as candidates for correcting the human label.

The paper (5.2) observed that SAM follows outlines and fine parts that annotators had drawn as rough polygons, or left
out. A disagreement is a connected region that one of the two labels with a class and the other does not, after regions
narrower than a few pixels are removed. Its score is its share of the image times SAM's predicted quality of the mask
there, so large and confident ones come first. Where SAM has no mask of the class nearby, the detector gave it no box
there. This says nothing about the annotator, so it is no disagreement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from wsss_ray.classes import ClassSet
from wsss_ray.shards.instance import Instance

Kind = Literal["sam_only", "truth_only"]

SQUARE = np.ones((3, 3), bool)
"""Pixels that touch, also at a corner, are connected."""


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """A region of an image where SAM and the annotator disagree about a class."""

    class_name: str
    kind: Kind
    """sam_only: only SAM labels the class. truth_only: only the annotator does, beside SAM's mask."""
    other: str
    """Label of the other side at most of its pixels: a class or "background"."""
    box: tuple[int, int, int, int]
    """XYXY pixels: left, top, right, bottom, the last two exclusive."""
    pixels: int
    share: float
    """Share of the image, 0 to 1."""
    mask_score: float
    """IoU that SAM predicts for the mask with most pixels in the region (truth_only: beside it), cut to 0 to 1."""
    score: float
    """share x mask_score."""


def find_disagreements(
    label: np.ndarray,
    truth: np.ndarray,
    instances: Sequence[Instance],
    classes: ClassSet,
    *,
    width: int,
    smallest_share: float,
) -> list[Disagreement]:
    """Return the disagreements of one image, the highest score first.

    Args:
        label: (H, W) class ids of the label made with SAM.
        truth: (H, W) class ids of the human label; pixels of ignore disagree with nothing.
        instances: of the label row.
        classes: names of the ids.
        width: regions narrower than this many pixels are dropped, by an opening with a square.
        smallest_share: regions smaller than this share of the image are dropped.
    """
    comparable = (truth != classes.ignore_id) & (label != classes.ignore_id)
    disagreements: list[Disagreement] = []
    for class_id in sorted({instance.class_id for instance in instances}):
        masks = [instance for instance in instances if instance.class_id == class_id]
        said, drawn = label == class_id, truth == class_id
        unsaid = label == classes.background_id  # another class's pixels count for that class
        sides: tuple[tuple[Kind, np.ndarray, np.ndarray], ...] = (
            ("sam_only", said & ~drawn & comparable, truth),
            ("truth_only", drawn & unsaid & comparable, label),
        )
        for kind, differs, other in sides:
            if np.count_nonzero(differs) < smallest_share * label.size:
                continue
            thick = ndimage.grey_opening(differs.view(np.uint8), (width, width), mode="constant")
            parts, count = ndimage.label(thick, SQUARE)
            if count == 0:
                continue
            confidence = _confidence(parts, count, masks, reach=0 if kind == "sam_only" else width)
            for part, where in enumerate(ndimage.find_objects(parts), start=1):
                inside = parts[where] == part
                pixels = int(inside.sum())
                share = pixels / label.size
                if share < smallest_share or np.isnan(confidence[part]):
                    continue
                mask_score = float(np.clip(confidence[part], 0, 1))
                rows, columns = where
                region = Disagreement(
                    class_name=classes.by_id[class_id].name,
                    kind=kind,
                    other=_most_common(other[where][inside], classes),
                    box=(columns.start, rows.start, columns.stop, rows.stop),
                    pixels=pixels,
                    share=share,
                    mask_score=mask_score,
                    score=share * mask_score,
                )
                disagreements.append(region)
    return sorted(disagreements, key=lambda region: (-region.score, region.box))


def _confidence(parts: np.ndarray, count: int, masks: Sequence[Instance], *, reach: int) -> np.ndarray:
    """Return for each part the score of the mask, grown by `reach`, with most pixels in it: (count + 1,); NaN: none."""
    best = np.full(count + 1, np.nan)
    most = np.zeros(count + 1, np.int64)
    for instance in masks:  # one mask in memory at a time
        mask = instance.mask()
        if reach:
            mask = ndimage.binary_dilation(mask, SQUARE, iterations=reach)
        covered = np.bincount(parts[mask], minlength=count + 1)
        better = covered > most
        best[better] = instance.mask_score
        most[better] = covered[better]
    return best


def _most_common(ids: np.ndarray, classes: ClassSet) -> str:
    values, counts = np.unique(ids, return_counts=True)
    class_id = int(values[counts.argmax()])
    return classes.by_id[class_id].name if class_id in classes.by_id else "background"
