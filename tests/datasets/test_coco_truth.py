"""COCO annotations painted by hand-computed rules, and against pycocotools on real ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import pytest

from wsss_ray.datasets.coco_truth import decode_segmentation, paint_instances

LEFT = [[0, 0, 4, 0, 4, 4, 0, 4]]
RIGHT = [[3, 0, 6, 0, 6, 4, 3, 4]]
"""Two rectangles on 4 x 6 pixels that share column 3: 16 and 12 pixels."""


def paint(annotations: list[Any], *, order: str = "area", crowd: str = "ignore", size: tuple[int, int] = (4, 6)) -> Any:
    return paint_instances(
        json.dumps(annotations).encode(),
        height=size[0],
        width=size[1],
        order=order,  # type: ignore[arg-type]
        crowd=crowd,  # type: ignore[arg-type]
        background_id=0,
        ignore_id=255,
        dtype=np.uint8,
    )


def plain_rle(mask: np.ndarray) -> dict[str, Any]:
    """Uncompressed COCO RLE, column by column, of an (H, W) bool mask."""
    counts, last, run = [], False, 0
    for value in mask.ravel(order="F"):
        if value != last:
            counts.append(run)
            last, run = value, 0
        run += 1
    return {"size": list(mask.shape), "counts": [*counts, run]}


def compressed_rle(mask: np.ndarray) -> dict[str, Any]:
    encoded = pycocotools.mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def test_a_polygon_is_painted() -> None:
    np.testing.assert_array_equal(paint([[3, 0, LEFT]]), [[3, 3, 3, 3, 0, 0]] * 4)


def test_the_two_orders_differ_where_objects_overlap() -> None:
    large_last = [[2, 0, RIGHT], [1, 0, LEFT]]
    np.testing.assert_array_equal(paint(large_last, order="area"), [[1, 1, 1, 2, 2, 2]] * 4)
    np.testing.assert_array_equal(paint(large_last, order="json"), [[1, 1, 1, 1, 2, 2]] * 4)
    small_last = large_last[::-1]
    for order in ("area", "json"):
        np.testing.assert_array_equal(paint(small_last, order=order), [[1, 1, 1, 2, 2, 2]] * 4)


def test_of_equal_areas_the_later_lies_on_top() -> None:
    for order in ("area", "json"):
        assert paint([[1, 0, LEFT], [2, 0, LEFT]], order=order)[0, 0] == 2


def test_polygons_of_an_object_are_joined() -> None:
    two = [[0, 0, 1, 0, 1, 4, 0, 4], [5, 0, 6, 0, 6, 4, 5, 4]]
    np.testing.assert_array_equal(paint([[1, 0, two]]), [[1, 0, 0, 0, 0, 1]] * 4)


def test_holes() -> None:
    ring = np.ones((4, 6), bool)
    ring[1:3, 1:5] = False
    expected = np.where(ring, 7, 0)
    np.testing.assert_array_equal(paint([[7, 0, plain_rle(ring)]]), expected)
    np.testing.assert_array_equal(paint([[7, 0, compressed_rle(ring)]]), expected)
    keyhole = [[0, 0, 6, 0, 6, 4, 0, 4, 0, 0, 1, 1, 1, 3, 5, 3, 5, 1, 1, 1]]
    np.testing.assert_array_equal(paint([[7, 0, keyhole]]), expected)
    under = paint([[7, 0, plain_rle(ring)], [3, 0, plain_rle(np.ones((4, 6), bool))]])
    assert under[1, 1] == 3
    assert under[0, 0] == 7


CROWD = [[1, 1, plain_rle(np.ones((4, 6), bool))], [2, 0, RIGHT]]


@pytest.mark.parametrize("order", ["area", "json"])
@pytest.mark.parametrize(("crowd", "value"), [("include", 1), ("exclude", 0), ("ignore", 255)])
def test_crowds(order: str, crowd: str, value: int) -> None:
    np.testing.assert_array_equal(paint(CROWD, order=order, crowd=crowd), [[value] * 3 + [2] * 3] * 4)


def test_an_ignored_crowd_lies_below_objects_wherever_it_stands() -> None:
    np.testing.assert_array_equal(paint(CROWD[::-1], order="json"), [[255, 255, 255, 2, 2, 2]] * 4)
    np.testing.assert_array_equal(paint(CROWD[::-1], order="json", crowd="include"), [[1] * 6] * 4)


def test_nothing_is_background_and_short_polygons_cover_nothing() -> None:
    assert not paint([]).any()
    assert not paint([[1, 0, []], [1, 0, [[]]], [1, 0, [[0, 0, 4, 4]]], [1, 0, [[0, 0, 4, 4], [1, 1]]]]).any()


def test_sixteen_bit_ids() -> None:
    label = paint_instances(
        json.dumps([[300, 0, LEFT], [1, 1, RIGHT]]).encode(),
        height=4,
        width=6,
        order="area",
        crowd="ignore",
        background_id=0,
        ignore_id=65535,
        dtype=np.uint16,
    )
    np.testing.assert_array_equal(label, [[300, 300, 300, 300, 65535, 65535]] * 4)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "neither a list of polygons nor RLE"),
        ("abc", "neither"),
        ([1, 2, 3], "neither"),
        ([[0, 0, 4, 0, 4]], "x and y in turn"),
        ([[0, 0, 4, 0, 4, "4"]], "x and y in turn"),
        ([[0, 0, 4, 0, 4, None]], "x and y in turn"),
        ([[0, 0, 4, 0, 4, True]], "x and y in turn"),
        ([[0, 0, 4, 0, 4, float("nan")]], "far outside"),
        ([[0, 0, 4, 0, float("inf"), 4]], "far outside"),
        ([[0, 0, 4, 0, 1e300, 4]], "far outside"),
        ([[0, 0, 4, 0, 10**400, 4]], "far outside"),
        ([[0, 0, 12.5, 0, 4, 4]], "far outside"),
        ([[0, -4.5, 6, 0, 4, 4]], "far outside"),
        ([[0, 0, 6, 4] * 100_001], "pixels long"),
        ({"counts": [24]}, "size None"),
        ({"size": [6, 4], "counts": [24]}, r"size \[6, 4\]"),
        ({"size": [4, 6]}, "no counts"),
        ({"size": [4, 6], "counts": [23]}, "23 pixels"),
        ({"size": [4, 6], "counts": [0, 2**31, 2**31]}, "pixels"),
        ({"size": [4, 6], "counts": [-1, 25]}, "from 0 to"),
        ({"size": [4, 6], "counts": [24.0]}, "whole numbers"),
        ({"size": [4, 6], "counts": "0" * 1000}, "pixels"),
        ({"size": [4, 6], "counts": "\u56fe"}, "character"),
        ({"size": [10**9, 10**9], "counts": [10**18]}, "size"),
    ],
)
def test_what_cannot_be_painted_has_a_reason(segmentation: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^bad segmentation: annotation 2 of the image: .*{message}"):
        paint([[1, 0, LEFT], [2, 0, segmentation]])


def test_polygons_may_end_a_little_outside() -> None:
    mask = decode_segmentation([[-1, -1, 6.5, -1, 6.5, 4.5, -1, 4.5]], 4, 6)
    assert mask.all()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:pycocotools")
def test_real_annotations_come_out_as_pycocotools_decodes_them(shared: Path) -> None:
    """The shared file's masks never overlap, so that any order must give the union of what pycocotools decodes."""
    content = json.loads((shared / "data/coco/annotations/instances_val2017.json").read_text(encoding="utf-8"))
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"][:10]}
    painted = 0
    for image_id, (height, width) in sizes.items():
        records = [record for record in content["annotations"] if record["image_id"] == image_id]
        expected = np.zeros((height, width), np.uint8)
        for record in records:
            expected[pycocotools.mask.decode(record["segmentation"]) == 1] = record["category_id"]
        annotations = [[record["category_id"], record["iscrowd"], record["segmentation"]] for record in records]
        for order in ("area", "json"):
            label = paint(annotations, order=order, crowd="include", size=(height, width))
            np.testing.assert_array_equal(label, expected)
        painted += int(expected.any())
    assert painted >= 8
