"""Recall of tagged objects: which objects of the truth have a mask of their own among the labels'.

An object is recalled when a predicted mask of its class has an IoU of at least 0.5 with it. Masks are given to objects
as COCO's evaluation gives them: one mask to one object, masks by falling score, each to the free object that it
overlaps most; without COCO's limit of 100 masks. Objects of classes that are not among the image's tags are left out.

Objects of the truth are, with COCO annotations, each annotation that is no crowd, as drawn, be it covered by others or
not. Otherwise they are the connected parts of each class in the truth's label map: pixels that touch, be it by a
corner; parts below a number of pixels are left out; two things that touch are one object. Predicted masks are the
label rows' instances, or, where a row has none (predictions of a network, label PNGs), the connected parts of the
label map. With connected parts as truth, pixels whose truth is ignored belong to no mask.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import ndimage

from wsss_ray.data.image_header import ImageError
from wsss_ray.data.rle import check_counts, encode_mask, intersect_masks, mask_overlaps, parse_counts

FOUND_IOU = 0.5
"""IoU from which an object, or a class in an image, counts as found."""
_TOUCHING = np.ones((3, 3), dtype=bool)

Masks = Mapping[int, Sequence[bytes]]
"""Compressed COCO counts by index of the class; predicted ones by falling score."""


@dataclass(frozen=True, kw_only=True)
class InstanceRule:
    """By which objects and masks the recall of an evaluation was counted."""

    truth: Literal["coco", "components"]
    """coco: annotations that are no crowd. components: connected parts of the truth."""
    smallest: int
    """Pixels below which a connected part of the truth is left out."""
    by_instances: int
    """Images whose predicted masks are the instances of their label row."""
    by_components: int
    """Images whose predicted masks are the connected parts of their label."""

    def __str__(self) -> str:
        """For the table."""
        if self.truth == "coco":
            truth = "COCO annotations without crowds"
        else:
            truth = f"connected parts of the truth from {self.smallest} pixels on"
        kinds = (("the rows' instances", self.by_instances), ("connected parts of the label", self.by_components))
        used = [f"{name} ({images:,} images)" for name, images in kinds if images]
        return f"objects are {truth}; masks are {' or '.join(used) or 'nobody’s: no label could be used'}"

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "truth": self.truth,
            "smallest_pixels": self.smallest if self.truth == "components" else None,
            "iou": FOUND_IOU,
            "images_by_instances": self.by_instances,
            "images_by_components": self.by_components,
        }


def connected_parts(indices: np.ndarray, places: Collection[int], *, smallest: float) -> dict[int, list[bytes]]:
    """Masks of the connected parts of some classes in a (H, W) map of class indices, those of `smallest` pixels on."""
    masks: dict[int, list[bytes]] = {}
    for place in places:
        parts, count = ndimage.label(indices == place, structure=_TOUCHING)
        pixels = np.bincount(parts.ravel(), minlength=count + 1)
        large = [part for part in range(1, count + 1) if pixels[part] >= smallest]
        if large:
            masks[place] = [encode_mask(parts == part) for part in large]
    return masks


def matching_parts(indices: np.ndarray, objects: Masks) -> dict[int, list[bytes]]:
    """Connected parts of the objects' classes in a (H, W) map of class indices, but for those too small for any match.

    A part that has an IoU of 0.5 with an object has at least half of its pixels.
    """
    masks: dict[int, list[bytes]] = {}
    for place, group in objects.items():
        smallest = min(int(parse_counts(counts)[1::2].sum()) for counts in group)
        masks |= connected_parts(indices, [place], smallest=max(1.0, smallest * FOUND_IOU))
    return masks


def group_objects(
    objects: Iterable[tuple[int, bytes]], places: Mapping[int, int], wanted: Collection[int]
) -> dict[int, list[bytes]]:
    """Masks of objects (class id and counts) by index of their class, for the wanted indices."""
    masks: dict[int, list[bytes]] = {}
    for class_id, counts in objects:
        if places[class_id] in wanted:
            masks.setdefault(places[class_id], []).append(counts)
    return masks


def row_masks(
    instances: Sequence[Mapping[str, Any]], places: Mapping[int, int], size: tuple[int, int]
) -> dict[int, list[bytes]]:
    """Masks of a label row's instances by falling score.

    Args:
        instances: as LABEL_SCHEMA has them.
        places: index by class id.
        size: (height, width) of the image in pixels.

    Raises:
        ImageError: one is of no class, or its mask is damaged or of another size.
    """
    masks: dict[int, list[bytes]] = {}
    for entry in sorted(instances, key=lambda entry: -entry["score"]):
        mask = entry["mask"]
        if entry["class_id"] not in places:
            raise ImageError(f"instances: class id {entry['class_id']} is no class")
        if (mask["height"], mask["width"]) != size:
            raise ImageError(f"instances: a mask is {mask['width']} x {mask['height']} (width x height)")
        try:
            check_counts(mask["counts"], *size)
        except ValueError as error:
            raise ImageError(f"instances: {error}") from error
        masks.setdefault(places[entry["class_id"]], []).append(mask["counts"])
    return masks


def without(masks: Masks, ignored: np.ndarray) -> Masks:
    """The masks without the ignored pixels ((H, W) bool)."""
    if not ignored.any():
        return masks
    kept = encode_mask(~ignored)
    return {place: intersect_masks(group, kept, *ignored.shape) for place, group in masks.items()}


def count_recalled(objects: Masks, masks: Masks, size: tuple[int, int], count: int) -> np.ndarray:
    """(2, count) int64 by class: objects, and those of them that are recalled by the masks."""
    counts = np.zeros((2, count), np.int64)
    for place, truths in objects.items():
        overlaps = mask_overlaps(masks.get(place, ()), *size, others=truths)
        counts[:, place] = len(truths), match(overlaps).sum()
    return counts


def match(overlaps: np.ndarray) -> np.ndarray:
    """(M,) bool: which of M objects get one of N masks, given their (N, M) IoU, masks by falling score."""
    free = np.ones(overlaps.shape[1], dtype=bool)
    for row in overlaps:
        values = np.where(free, row, -1.0)
        best = len(values) - 1 - int(values[::-1].argmax())  # of equal ones the later, as in COCO
        if values[best] >= FOUND_IOU:
            free[best] = False
    return ~free
