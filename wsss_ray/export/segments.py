"""Instances without overlaps: each pixel of the label map belongs to one of them.

The label map is authoritative: a mask gets those of its pixels that have its class there. Where several masks of the
class cover a pixel, the labelling run's painting rule decides; for `prob`, whose probabilities are not stored, the
detector's score decides. The pixels of a class that no mask of the class covers (the label map was changed after
painting) form one more segment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from wsss_ray.classes import ClassSet
from wsss_ray.export.records import Record
from wsss_ray.models.registries import FUSION_RULES
from wsss_ray.shards.instance import Instance

_PIXELS_AT_ONCE = 1 << 20
"""NumPy widens indices to 8 bytes each, so large maps are processed in bands of rows."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """The pixels of one object."""

    number: int
    """Its value in the map of segments, from 1."""
    class_id: int
    instance: Instance | None
    """None for the pixels of the class that no mask covers: possibly several objects."""
    area: int
    bbox: tuple[int, int, int, int]
    """Tight box: left, top, width, height in pixels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Segments:
    """The segments of an image."""

    numbers: np.ndarray
    """(H, W) uint16 or int32: number of the segment, 0 for background and ignored pixels."""
    segments: tuple[Segment, ...]
    """In the order of the instances, then by class."""
    hidden: int
    """Masks without a visible pixel."""


def divide_label(record: Record, classes: ClassSet, paint: str) -> Segments:
    """Divide the label map of a record among its instances.

    Args:
        record: label map and instances.
        classes: ids of background and ignore.
        paint: `FusionConfig.paint` of the labelling run.
    """
    assert record.instances is not None, "predictions have no instances"
    label, instances = record.label, record.instances
    # Values: 0 for no object, 1 to N for the instances, N + id for the pixels of a class that no mask covers.
    count = len(instances) + 1 + np.iinfo(label.dtype).max
    values = np.zeros(label.shape, np.uint16 if count <= 1 << 16 else np.int32)
    rule = FUSION_RULES.get(paint)
    scores, areas_of_masks = [entry.score for entry in instances], [entry.area for entry in instances]
    for index in rule.painting_order(scores, areas_of_masks):
        mask = instances[index].mask()
        mask &= label == instances[index].class_id
        np.copyto(values, index + 1, where=mask)
    is_object = np.ones(np.iinfo(label.dtype).max + 1, np.bool_)
    is_object[[classes.background_id, classes.ignore_id]] = False
    areas = np.zeros(count, np.int64)
    for band in _bands(label):
        uncovered = (values[band] == 0) & is_object[label[band]]
        values[band][uncovered] = label[band][uncovered].astype(values.dtype) + len(instances)
        areas += np.bincount(values[band].reshape(-1), minlength=count)
    visible = np.flatnonzero(areas[1:]) + 1
    table = np.zeros(count, values.dtype)
    table[visible] = np.arange(1, visible.size + 1)
    numbers = look_up(table, values)
    segments = []
    for number, (value, slices) in enumerate(
        zip(visible.tolist(), ndimage.find_objects(numbers), strict=True), start=1
    ):
        instance = instances[value - 1] if value <= len(instances) else None
        rows, columns = slices
        segments.append(
            Segment(
                number=number,
                class_id=value - len(instances) if instance is None else instance.class_id,
                instance=instance,
                area=int(areas[value]),
                bbox=(columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start),
            )
        )
    hidden = len(instances) - sum(segment.instance is not None for segment in segments)
    return Segments(numbers=numbers, segments=tuple(segments), hidden=hidden)


def look_up(table: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return `table[values]` for an (H, W) map of row numbers of the table, with little memory beside the result."""
    result = np.empty((*values.shape, *table.shape[1:]), table.dtype)
    for rows in _bands(values):
        result[rows] = table[values[rows]]
    return result


def _bands(values: np.ndarray) -> Iterator[slice]:
    """Iterate over slices of rows that hold about `_PIXELS_AT_ONCE` pixels."""
    height, width = values.shape
    step = max(1, _PIXELS_AT_ONCE // max(width, 1))
    return (slice(start, start + step) for start in range(0, height, step))
