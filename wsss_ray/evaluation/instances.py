"""Recall of tagged objects: the share of objects in the truth that are matched by a predicted mask of their own.

An object is recalled when a predicted mask of its class has an IoU of at least 0.5 with it. Masks are matched as in
COCO's evaluation: one mask to one object, masks by falling score, each to the unmatched object that it overlaps most,
but without COCO's limit of 100 masks. Objects of classes that are not among the image's tags are left out.

With COCO annotations, an object of the truth is an annotation that is no crowd, as drawn, even where others cover it.
Otherwise it is a connected part of a class in the truth's label map: pixels that touch, also at a corner. Parts with
too few pixels are left out; two objects that touch count as one. Predicted masks are the instances of the label rows,
or, if a row has none (predictions of a network, label PNGs), the connected parts of the label map. With connected parts
as truth, pixels whose truth is ignored belong to no mask.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import ndimage

from wsss_ray.images.header import ImageError
from wsss_ray.images.rle import encode_mask, intersect_masks, mask_overlaps, parse_counts
from wsss_ray.shards.instance import Instance

FOUND_IOU = 0.5
"""An object, or a class in an image, with this IoU or more counts as found."""
_TOUCHING = np.ones((3, 3), dtype=bool)

Masks = Mapping[int, Sequence[bytes]]
"""Compressed COCO counts by index of the class; predicted ones by falling score."""


@dataclass(frozen=True, kw_only=True)
class InstanceRule:
    """The rule by which an evaluation counted objects and masks."""

    truth: Literal["coco", "components"]
    """coco: annotations that are no crowd. components: connected parts of the truth."""
    smallest: int
    """A connected part of the truth with fewer pixels is left out."""
    by_instances: int
    """Images whose predicted masks are the instances of their label row."""
    by_components: int
    """Images whose predicted masks are the connected parts of their label."""

    def __str__(self) -> str:
        """Return the text for the table."""
        if self.truth == "coco":
            truth = "COCO annotations without crowds"
        else:
            truth = f"connected parts of the truth from {self.smallest} pixels on"
        kinds = (("the rows' instances", self.by_instances), ("connected parts of the label", self.by_components))
        used = [f"{name} ({images:,} images)" for name, images in kinds if images]
        return f"objects are {truth}; masks are {' or '.join(used) or 'none: no label could be used'}"

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "truth": self.truth,
            "smallest_pixels": self.smallest if self.truth == "components" else None,
            "iou": FOUND_IOU,
            "images_by_instances": self.by_instances,
            "images_by_components": self.by_components,
        }


def connected_parts(indices: np.ndarray, classes: Iterable[int], *, smallest: float) -> dict[int, list[bytes]]:
    """Return the connected parts of some classes in a (H, W) map of class indices, from `smallest` pixels on."""
    masks: dict[int, list[bytes]] = {}
    for index in classes:
        mask = indices == index
        if not mask.any():
            continue
        window = _window(mask)
        parts, pixels = _label(mask[window], smallest)
        whole = np.zeros(mask.shape, dtype=bool)
        for part in range(1, len(pixels)):
            whole[window] = parts == part
            masks.setdefault(index, []).append(encode_mask(whole))
    return masks


def count_parts(
    truth: np.ndarray, prediction: np.ndarray, classes: Iterable[int], count: int, *, smallest: float
) -> np.ndarray:
    """Return (2, count) int64 by class: connected parts of the truth from `smallest` pixels on, and those recalled.

    The result is that of `count_recalled` for the connected parts of both (H, W) maps, without encoded masks.
    """
    counts = np.zeros((2, count), np.int64)
    for index in classes:
        wanted, found = truth == index, prediction == index
        if not wanted.any():
            continue
        window = _window(wanted | found)
        objects, areas = _label(wanted[window], smallest)
        parts, part_areas = _label(found[window], smallest * FOUND_IOU)  # smaller ones match no object
        both = np.bincount((objects * len(part_areas) + parts).ravel(), minlength=len(areas) * len(part_areas))
        both = both.reshape(len(areas), len(part_areas))[1:, 1:]
        union = areas[1:, None] + part_areas[None, 1:] - both
        counts[:, index] = len(areas) - 1, match((both / union).T).sum()
    return counts


def _window(mask: np.ndarray) -> tuple[slice, slice]:
    """Return the bounding box of a (H, W) bool mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _label(mask: np.ndarray, smallest: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (H, W) numbers of the connected parts of `smallest` pixels or more, from 1, and the pixels by number."""
    parts, _ = ndimage.label(mask, structure=_TOUCHING)
    pixels = np.bincount(parts.ravel())
    pixels[0] = 0
    large = pixels >= smallest
    if large[1:].all():
        return parts, pixels
    large[0] = False
    numbers = np.where(large, np.cumsum(large), 0).astype(np.int32)
    return numbers[parts], np.concatenate([[0], pixels[large]])


def matching_parts(indices: np.ndarray, objects: Masks) -> dict[int, list[bytes]]:
    """Return the connected parts of the objects' classes in a (H, W) map of class indices that are not too small.

    A part that has an IoU of 0.5 with an object has at least half of its pixels.
    """
    masks: dict[int, list[bytes]] = {}
    for index, group in objects.items():
        smallest = min(int(parse_counts(counts)[1::2].sum()) for counts in group)
        masks |= connected_parts(indices, [index], smallest=max(1.0, smallest * FOUND_IOU))
    return masks


def group_objects(
    objects: Iterable[tuple[int, bytes]], by_id: Mapping[int, int], wanted: Collection[int]
) -> dict[int, list[bytes]]:
    """Return the masks of objects (class id and counts) by index of their class, for the wanted indices."""
    masks: dict[int, list[bytes]] = {}
    for class_id, counts in objects:
        if by_id[class_id] in wanted:
            masks.setdefault(by_id[class_id], []).append(counts)
    return masks


def row_masks(instances: Iterable[Instance], by_id: Mapping[int, int]) -> dict[int, list[bytes]]:
    """Return the masks of a label row's instances by falling score.

    Args:
        instances: of one image.
        by_id: index by class id.

    Raises:
        ImageError: an instance is of no class.
    """
    masks: dict[int, list[bytes]] = {}
    for instance in sorted(instances, key=lambda instance: -instance.score):
        if instance.class_id not in by_id:
            raise ImageError(f"instances: no class has the id {instance.class_id}")
        masks.setdefault(by_id[instance.class_id], []).append(instance.counts)
    return masks


def without(masks: Masks, ignored: np.ndarray) -> Masks:
    """Return the masks without the ignored pixels ((H, W) bool)."""
    if not ignored.any():
        return masks
    kept = encode_mask(~ignored)
    return {index: intersect_masks(group, kept, *ignored.shape) for index, group in masks.items()}


def count_recalled(objects: Masks, masks: Masks, size: tuple[int, int], count: int) -> np.ndarray:
    """Return (2, count) int64 by class: objects, and those of them that the masks recall."""
    counts = np.zeros((2, count), np.int64)
    for index, truths in objects.items():
        overlaps = mask_overlaps(masks.get(index, ()), *size, others=truths)
        counts[:, index] = len(truths), match(overlaps).sum()
    return counts


def match(overlaps: np.ndarray) -> np.ndarray:
    """Return (M,) bool: the objects that are matched, given the (N, M) IoU of N masks by falling score."""
    free = np.ones(overlaps.shape[1], dtype=bool)
    for row in overlaps if free.any() else ():
        values = np.where(free, row, -1.0)
        best = len(values) - 1 - int(values[::-1].argmax())  # of equal ones the later, as in COCO
        if values[best] >= FOUND_IOU:
            free[best] = False
    return ~free
