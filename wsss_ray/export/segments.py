"""Instance masks without overlaps, as they were painted into the label map: each pixel belongs to one of them.

The label map is authoritative: a mask gets those of its pixels that have its class there. Where several masks of the
class claim a pixel, the run's own painting rule decides; for `prob`, whose probabilities were not kept, the detector's
score. Pixels of a class that no mask of the class covers (labels that were changed after painting) become one segment
more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsss_ray.classes import ClassSet
from wsss_ray.export.records import Instance, Record


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A set of pixels that belong to one thing."""

    number: int
    """Its value in the map of segments, from 1."""
    class_id: int
    instance: Instance | None
    """None for pixels of the class that no mask covers: possibly several things."""
    area: int
    bbox: tuple[int, int, int, int]
    """Tight box: left, top, width, height in pixels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Segments:
    """The segments of an image."""

    numbers: np.ndarray
    """(H, W) int32: number of the segment, 0 for background and ignored pixels."""
    segments: tuple[Segment, ...]
    """In the order of the instances, then by class."""
    hidden: int
    """Masks of which no pixel is left (or that were empty)."""


def paint_segments(record: Record, classes: ClassSet, paint: str) -> Segments:
    """Divide the label map of a record that has instances among them.

    Args:
        record: label and instances.
        classes: ids of background and ignore.
        paint: the run's `FusionConfig.paint`.
    """
    assert record.instances is not None, "predictions have no instances"
    label = record.label
    painted = np.zeros(label.shape, np.int32)
    for index in _painting_order(record.instances, paint):
        instance = record.instances[index]
        painted[instance.mask() & (label == instance.class_id)] = index + 1
    first = len(record.instances) + 1
    is_class = (label != classes.background_id) & (label != classes.ignore_id)
    uncovered = is_class & (painted == 0)
    left_over = np.unique(label[uncovered]).tolist() if uncovered.any() else []
    for offset, class_id in enumerate(left_over):
        painted[uncovered & (label == class_id)] = first + offset
    owners: list[tuple[int, Instance | None]] = [(instance.class_id, instance) for instance in record.instances]
    owners += [(int(class_id), None) for class_id in left_over]
    areas = np.bincount(painted.reshape(-1), minlength=len(owners) + 1)[1:]
    visible = np.flatnonzero(areas)
    numbers = np.zeros(len(owners) + 1, np.int32)
    numbers[visible + 1] = np.arange(1, visible.size + 1)
    segments = tuple(
        Segment(
            number=number,
            class_id=owners[index][0],
            instance=owners[index][1],
            area=int(areas[index]),
            bbox=_bbox(painted == index + 1),
        )
        for number, index in enumerate(visible.tolist(), start=1)
    )
    return Segments(numbers=numbers[painted], segments=segments, hidden=len(owners) - visible.size)


def _painting_order(instances: Sequence[Instance], paint: str) -> list[int]:
    """Indices of the masks, the one that wins everywhere last; of equals, the later query wins."""
    if paint == "detection":
        return list(range(len(instances)))
    if paint == "area":
        return sorted(range(len(instances)), key=lambda index: -instances[index].area)
    return sorted(range(len(instances)), key=lambda index: instances[index].score)


def _bbox(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1
