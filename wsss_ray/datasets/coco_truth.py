"""Paint COCO annotations into a label map. Sizes are checked before anything is decoded."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pycocotools.mask

from wsss_ray.classes import ClassSet
from wsss_ray.datasets.items import TruthInstances
from wsss_ray.images.rle import decode_counts, decode_mask

PaintOrder = Literal["area", "json"]
Crowd = Literal["include", "exclude", "ignore"]
OnMask = Callable[[int, bool, np.ndarray], None]

_MAX_OUTLINE = 1_000_000
"""Most pixels of a polygon's outline: rasterizing takes memory by this length."""
_NOT_PAINTED = np.iinfo(np.int32).max


def paint_instances(
    annotations: bytes,
    *,
    height: int,
    width: int,
    order: PaintOrder,
    crowd: Crowd,
    background_id: int,
    ignore_id: int,
    dtype: type[np.uint8] | type[np.uint16],
    on_mask: OnMask | None = None,
) -> np.ndarray:
    """Return the label map of an image's annotations.

    Args:
        annotations: JSON list of [class id, is crowd, segmentation], in the file's order.
        height: height of the image in pixels, as stored.
        width: width in pixels, likewise.
        order: which of two overlapping annotations is on top. `area`: the one that covers fewer pixels (of equal ones
            the later); `json`: the later in the file.
        crowd: crowd regions are painted as their class, left out, or painted as ignore, then below all objects.
        background_id: value where nothing is painted.
        ignore_id: value of ignored crowd regions.
        dtype: type of the label map.
        on_mask: called for each annotation that is not left out, in the file's order, with its class id, whether it
            is a crowd, and its (height, width) bool mask.

    Returns:
        (height, width) array of class ids.

    Raises:
        ValueError: a segmentation is malformed or of another size; the text is a short reason.
    """
    label = np.full((height, width), background_id, dtype)
    ranks = np.full((height, width), _NOT_PAINTED, np.int32)  # of what is on top of each pixel; lower ranks cover
    for index, (class_id, is_crowd, segmentation) in enumerate(_parse(annotations)):
        if is_crowd and crowd == "exclude":
            continue
        try:
            mask = decode_segmentation(segmentation, height, width)
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else error
            raise ValueError(f"bad segmentation: annotation {index + 1} of the image: {reason}") from error
        if on_mask is not None:
            on_mask(class_id, bool(is_crowd), mask)
        if is_crowd and crowd == "ignore":
            rank, value = _NOT_PAINTED, ignore_id
        else:
            rank, value = (int(mask.sum()) if order == "area" else -index), class_id
        on_top = mask & (ranks >= rank)
        label[on_top] = value
        ranks[on_top] = rank
    return label


def _parse(annotations: bytes) -> list[tuple[int, int, Any]]:
    try:
        parsed: list[tuple[int, int, Any]] = json.loads(annotations)
    except RecursionError as error:
        raise ValueError("bad segmentation: an annotation of the image is nested too deeply") from error
    return parsed


def paint_truth(
    truth: TruthInstances,
    *,
    size: tuple[int, int],
    class_set: ClassSet,
    order: PaintOrder,
    crowd: Crowd,
    on_mask: OnMask | None = None,
) -> np.ndarray:
    """Return the (H, W) label map of an image's annotations in the classes' ids, by the rules of `paint_instances`.

    `size` is (height, width) of the image as stored, in pixels. Raises ValueError with a short reason where the
    annotations were drawn for an image of another size, or one of them cannot be used.
    """
    height, width = size
    drawn = (truth.height or height, truth.width or width)
    if drawn != size:
        raise ValueError(
            f"wrong size: the annotations are for {drawn[1]} x {drawn[0]}, the image is {width} x {height} "
            "(width x height)"
        )
    return paint_instances(
        truth.annotations,
        height=height,
        width=width,
        order=order,
        crowd=crowd,
        background_id=class_set.background_id,
        ignore_id=class_set.ignore_id,
        dtype=class_set.label_dtype,
        on_mask=on_mask,
    )


def decode_segmentation(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Return the (height, width) bool mask of a COCO segmentation.

    A list of polygons is their union, each a list of x and y in turn, in pixels; polygons of fewer than three points
    cover nothing. A dict is RLE, with `counts` as numbers or as compressed text, whose size must be the image's.

    Raises:
        ValueError: it is malformed, of another size, or has coordinates far outside of the image.
    """
    if isinstance(segmentation, dict):
        size, counts = segmentation.get("size"), segmentation.get("counts")
        if size != [height, width]:
            raise ValueError(f"its RLE is of size {str(size)[:40]} (height, width), the image of [{height}, {width}]")
        if not isinstance(counts, list | str):
            raise ValueError("its RLE has no counts")  # noqa: TRY004
        return decode_counts(counts, height, width, max_pixels=height * width)
    if not isinstance(segmentation, list) or not all(isinstance(polygon, list) for polygon in segmentation):
        raise ValueError("it is neither a list of polygons nor RLE")
    polygons = [_check_polygon(polygon, height, width) for polygon in segmentation]
    polygons = [polygon for polygon in polygons if len(polygon) >= 6]  # pycocotools would take 4 numbers for a box
    if not polygons:
        return np.zeros((height, width), dtype=bool)
    parts = pycocotools.mask.frPyObjects([polygon.tolist() for polygon in polygons], height, width)
    return decode_mask(pycocotools.mask.merge(parts)["counts"], height, width, max_pixels=height * width)


def _check_polygon(polygon: list[Any], height: int, width: int) -> np.ndarray:
    if not all(type(value) in (int, float) for value in polygon) or len(polygon) % 2:
        raise ValueError("a polygon is not a list of x and y in turn")
    try:
        points = np.array(polygon, dtype=np.float64).reshape(-1, 2)
    except OverflowError as error:
        raise ValueError("a polygon has a coordinate far outside of the image") from error
    if not (np.abs(points / (width, height) - 0.5) <= 1.5).all():  # up to one image size beyond each edge; no NaN
        raise ValueError(f"a polygon has a coordinate far outside of the image of {width} x {height}")
    steps = np.abs(points - np.roll(points, 1, axis=0)).max(axis=1, initial=0)
    if steps.sum() > _MAX_OUTLINE:
        raise ValueError(f"a polygon's outline is {steps.sum():.0f} pixels long")
    return points.ravel()
