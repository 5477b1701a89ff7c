"""Polygons of masks: hand-drawn cases, and that what is counted as lost is what filling them again shows."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from wsss_ray.export.polygons import trace


def parse(*rows: str) -> np.ndarray:
    return np.array([[character == "#" for character in row] for row in rows])


def fill(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return cv2.fillPoly(np.zeros(shape, np.uint8), [points], 1).astype(bool)


@pytest.mark.parametrize(
    ("rows", "corners"),
    [
        ((".....", ".###.", ".###.", "....."), {(1, 1), (3, 1), (3, 2), (1, 2)}),
        (("#",), {(0, 0)}),
        (("...", "..#"), {(2, 1)}),
        (("##",), {(0, 0), (1, 0)}),
        (("#..", ".#.", "..#"), {(0, 0), (2, 2)}),
        ((".#.", "###", ".#."), {(1, 0), (0, 1), (1, 2), (2, 1)}),
    ],
)
def test_corners_are_pixel_centres(rows: tuple[str, ...], corners: set[tuple[int, int]]) -> None:
    mask = parse(*rows)
    polygon = trace(mask)
    assert polygon is not None
    assert {tuple(point) for point in polygon.points.tolist()} == corners
    assert len(polygon.points) >= 3
    np.testing.assert_array_equal(fill(polygon.points, mask.shape), mask)
    assert polygon.mask_pixels == mask.sum()
    assert (polygon.hole_pixels, polygon.other_pixels, polygon.lost_pixels) == (0, 0, 0)


def test_an_empty_mask_has_none() -> None:
    assert trace(np.zeros((3, 4), np.bool_)) is None


def test_holes_are_filled_and_counted() -> None:
    mask = parse("#####", "#...#", "#.#.#", "#...#", "#####")
    polygon = trace(mask)
    assert polygon is not None
    assert polygon.hole_pixels == 8
    assert polygon.pieces == 1
    assert fill(polygon.points, mask.shape).all()


def test_pieces_are_joined_where_they_come_nearest() -> None:
    mask = parse("##.....", "##...##", ".....##", ".......")
    polygon = trace(mask)
    assert polygon is not None
    assert polygon.pieces == 2
    filled = fill(polygon.points, mask.shape)
    np.testing.assert_array_equal(filled, parse("##.....", "#######", ".....##", "......."))
    assert (polygon.hole_pixels, polygon.other_pixels, polygon.lost_pixels) == (0, 3, 0)


def test_bridges_are_the_shortest_that_join_all() -> None:
    mask = parse("#....#", "......", "......", "......", ".....#")
    polygon = trace(mask)
    assert polygon is not None
    np.testing.assert_array_equal(
        fill(polygon.points, mask.shape), parse("######", ".....#", ".....#", ".....#", ".....#")
    )
    assert polygon.other_pixels == 7


def test_thousands_of_specks_are_one_chain_in_a_moment() -> None:
    mask = np.zeros((300, 400), np.bool_)
    mask[::3, ::4] = True
    polygon = trace(mask)
    assert polygon is not None
    assert polygon.pieces == mask.sum() == 10_000
    # Every bridge is as short as the grid allows: two pixels between rows, three between columns.
    assert polygon.other_pixels == 100 * 99 * 2 + 99 * 3
    assert len(polygon.points) == 10_000 + 2 * 9_999


@pytest.mark.parametrize("tolerance", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(12))
def test_what_is_counted_is_what_filling_shows(seed: int, tolerance: float) -> None:
    random = np.random.default_rng(seed)
    height, width = random.integers(20, 90, 2)
    blurred = ndimage.gaussian_filter(random.normal(size=(height, width)), random.uniform(0.5, 4))
    mask = blurred > random.uniform(-0.5, 1) * blurred.std()
    polygon = trace(mask, tolerance=tolerance)
    assert polygon is not None
    filled = fill(polygon.points, mask.shape)
    assert polygon.mask_pixels == mask.sum()
    assert polygon.lost_pixels == (mask & ~filled).sum()
    assert polygon.hole_pixels + polygon.other_pixels == (filled & ~mask).sum()
    without_holes = ndimage.binary_fill_holes(mask)
    assert polygon.hole_pixels == (filled & without_holes & ~mask).sum()
    if not tolerance:
        assert polygon.lost_pixels == 0
        assert polygon.hole_pixels == (without_holes & ~mask).sum()
        assert polygon.other_pixels == 0 or polygon.pieces > 1


@pytest.mark.parametrize("seed", range(6))
def test_one_piece_without_holes_is_exact_for_pillow_too(seed: int) -> None:
    blurred = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(70, 80)), 3)
    parts, _ = ndimage.label(blurred > 0.3 * blurred.std(), structure=np.ones((3, 3)))
    mask = ndimage.binary_fill_holes(parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1)
    polygon = trace(mask)
    assert polygon is not None
    assert (polygon.hole_pixels, polygon.other_pixels, polygon.lost_pixels) == (0, 0, 0)
    canvas = Image.new("1", (80, 70))
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in polygon.points.tolist()], fill=1, outline=1)
    np.testing.assert_array_equal(np.asarray(canvas), mask)


def test_a_tolerance_leaves_corners_out() -> None:
    yy, xx = np.mgrid[:100, :100]
    mask = (yy - 50) ** 2 + (xx - 50) ** 2 < 40**2
    exact, simple = trace(mask), trace(mask, tolerance=1.0)
    assert exact is not None
    assert simple is not None
    assert len(simple.points) < len(exact.points) / 4
    assert 0 < simple.lost_pixels + simple.other_pixels < 0.03 * mask.sum()
