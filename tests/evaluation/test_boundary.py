"""Boundary regions against erosion of each mask, and what ignored truth does to them."""

import evaluation_cases as cases
import numpy as np
import pytest

from wsss_ray.evaluation.boundary import boundary_region, boundary_width, count_boundaries


def test_a_region_by_hand() -> None:
    label = np.zeros((5, 9), np.uint8)
    label[:, 5:] = 1
    # One pixel on each side of the outline, and one along the image's edge.
    assert boundary_region(label, 1).astype(int).tolist() == [
        [1, 1, 1, 1, 1, 1, 1, 1, 1],
        [1, 0, 0, 0, 1, 1, 0, 0, 1],
        [1, 0, 0, 0, 1, 1, 0, 0, 1],
        [1, 0, 0, 0, 1, 1, 0, 0, 1],
        [1, 1, 1, 1, 1, 1, 1, 1, 1],
    ]


@pytest.mark.parametrize("seed", range(30))
def test_regions_are_what_erosion_takes_away(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, columns = random.integers(1, 50, 2)
    width = int(random.integers(1, 9))
    coarse = random.integers(0, 3, (1 + height // 7, 1 + columns // 7))
    label = coarse.repeat(7, axis=0).repeat(7, axis=1)[:height, :columns].astype(np.uint8)
    expected = np.zeros(label.shape, dtype=bool)
    for value in range(3):
        expected |= cases.erode_away(label == value, width)
    assert np.array_equal(boundary_region(label, width), expected)


@pytest.mark.parametrize(("height", "width", "expected"), [(375, 500, 12), (480, 640, 16), (3, 4, 1), (1, 1, 1)])
def test_the_width_is_two_per_cent_of_the_diagonal(height: int, width: int, expected: int) -> None:
    assert boundary_width(height, width) == expected


def test_counts_by_hand() -> None:
    truth = np.zeros((7, 7), np.uint8)
    truth[2:5, 2:5] = 1
    label = np.roll(truth, 1, axis=1)
    counts = count_boundaries(truth, label, 2, 1)
    # The square's ring has 8 pixels; moved by one, rings share the top and bottom pairs, the rest differs.
    assert counts[:, 1].tolist() == [8, 8, 4]


def test_a_prediction_right_wherever_there_is_truth_scores_one() -> None:
    truth = np.zeros((40, 40), np.uint8)
    truth[8:32, 8:32] = 2  # the ignored border, as VOC draws it
    truth[11:29, 11:29] = 1
    label = np.zeros((40, 40), np.uint8)
    label[9:30, 10:31] = 1
    region_truth, region_label, both = count_boundaries(truth, label, 2, 3)
    assert (region_truth > 0).all()
    assert region_truth.tolist() == region_label.tolist() == both.tolist()


def test_no_class_in_the_prediction_is_background() -> None:
    truth = np.zeros((9, 9), np.uint8)
    truth[3:6, 3:6] = 1
    nothing = np.full((9, 9), 2, np.uint8)
    empty = np.zeros((9, 9), np.uint8)
    assert np.array_equal(count_boundaries(truth, nothing, 2, 1), count_boundaries(truth, empty, 2, 1))


@pytest.mark.parametrize("seed", range(5))
def test_random_maps_score_what_erosion_says(seed: int) -> None:
    random = np.random.default_rng(seed)
    maps = random.choice(np.array([0, 1, 2, 255], np.uint8), (2, 8, 9)).repeat(8, axis=1).repeat(8, axis=2)
    truth, label = maps[0], np.roll(maps[1], 2, axis=1)
    index = np.array([0, 1, 2] + [3] * 253, np.uint8)
    width = boundary_width(*truth.shape)
    region_truth, region_label, both = count_boundaries(index[truth], index[label], 3, width)
    iou = both / (region_truth + region_label - both)
    assert iou.mean() == pytest.approx(cases.boundary_again([(truth, label)], 3), abs=1e-15)
