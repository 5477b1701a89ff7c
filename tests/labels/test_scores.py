"""Matrices and scores against numbers worked out by hand, and against plain loops over masks."""

import math

import evaluation_cases as cases
import numpy as np
import pytest

from wsss_ray.classes import ClassEntry, ClassSet
from wsss_ray.labels.scores import ClassIndex, confusion_counts, dropped, headline, score

THREE = ClassSet.from_names(["cat", "dog"])
INDEX = ClassIndex.of(THREE)


def matrix(truth: list[list[int]], label: list[list[int]]) -> np.ndarray:
    return confusion_counts(INDEX(np.array(truth, np.uint8)), INDEX(np.array(label, np.uint8)), INDEX.count)


def test_a_matrix_by_hand() -> None:
    counts = matrix([[0, 0, 1], [1, 2, 255]], [[0, 1, 1], [255, 2, 2]])
    assert counts.dtype == np.int64
    # truth down (background, cat, dog, ignore), prediction across
    assert counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 1, 0]]


def test_scores_by_hand() -> None:
    scores = score(np.array([[6, 1, 1], [2, 4, 0], [0, 0, 2]]))
    assert scores.iou.tolist() == [6 / 10, 4 / 7, 2 / 3]
    assert scores.miou == pytest.approx((6 / 10 + 4 / 7 + 2 / 3) / 3, abs=0)
    assert scores.precision.tolist() == [6 / 8, 4 / 5, 2 / 3]
    assert scores.recall.tolist() == [6 / 8, 4 / 6, 1]
    assert scores.mean_accuracy == pytest.approx((6 / 8 + 4 / 6 + 1) / 3)
    assert scores.pixel_accuracy == 12 / 16
    assert scores.frequency_weighted_iou == pytest.approx((8 * 6 / 10 + 6 * 4 / 7 + 2 * 2 / 3) / 16)


def test_a_class_absent_from_the_truth_is_not_in_the_mean_but_its_pixels_are_wrong() -> None:
    scores = score(headline(matrix([[0, 0, 1, 1]], [[0, 2, 1, 1]])))
    assert scores.iou[:2].tolist() == [1 / 2, 1]
    assert math.isnan(scores.iou[2])
    assert scores.miou == 3 / 4
    assert scores.precision[2] == 0


def test_ignore_in_the_truth_is_left_out() -> None:
    right = matrix([[0, 1, 1]], [[0, 1, 1]])
    more = matrix([[0, 1, 1, 255, 255]], [[0, 1, 1, 2, 255]])
    assert score(headline(more)).miou == score(headline(right)).miou == 1
    assert headline(more).tolist() == headline(right).tolist()


def test_ignore_in_the_prediction_is_background_in_the_headline_and_left_out_of_dropped() -> None:
    counts = matrix([[0, 0, 1, 1]], [[0, 255, 1, 255]])
    assert headline(counts).tolist() == [[2, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert score(headline(counts)).miou == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert dropped(counts).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert score(dropped(counts)).miou == 1


def test_ids_need_not_be_dense_nor_begin_at_the_background() -> None:
    entries = (
        ClassEntry(name="b", id=40, phrases=("b",), color=(0, 0, 9)),
        ClassEntry(name="a", id=300, phrases=("a",), color=(0, 9, 0)),
    )
    classes = ClassSet(name="sparse", classes=entries, background_id=7, ignore_id=65535, assist_words=False)
    index = ClassIndex.of(classes)
    assert index.names == ("background", "b", "a")
    assert index(np.array([[7, 40, 300, 65535, 0]], np.uint16)).tolist() == [[0, 1, 2, 3, 3]]


def test_more_than_254_classes_have_their_own_indices() -> None:
    classes = ClassSet.from_names([f"class {number}" for number in range(700)])
    index = ClassIndex.of(classes)
    label = np.array([[0, 1, 255, 256, 700, 65535]], np.uint16)
    assert index(label).tolist() == [[0, 1, 255, 256, 700, 701]]
    counts = confusion_counts(index(label), index(label), index.count)
    assert counts.shape == (702, 702)
    assert score(headline(counts)).miou == 1


def test_counts_beyond_what_floats_hold_stay_exact() -> None:
    large = 2**53
    scores = score(np.array([[large + 1, 0], [0, 1]]))
    assert scores.truth[0] == large + 1
    assert scores.intersection[0] == large + 1


def test_no_truth_at_all_is_no_number() -> None:
    scores = score(np.zeros((3, 3), np.int64))
    assert math.isnan(scores.miou)
    assert math.isnan(scores.pixel_accuracy)
    assert math.isnan(scores.frequency_weighted_iou)


@pytest.mark.parametrize("seed", range(5))
def test_random_maps_score_what_masks_say(seed: int) -> None:
    random = np.random.default_rng(seed)
    ids = np.array([0, 1, 2, 255], np.uint8)
    pairs = [tuple(random.choice(ids, (2, *random.integers(1, 30, 2)))) for _ in range(4)]
    total = sum(confusion_counts(INDEX(truth), INDEX(label), 3) for truth, label in pairs)
    scores = score(headline(total))
    both, either = cases.count_again(pairs, 3)
    assert scores.intersection.tolist() == both.tolist()
    assert (scores.truth + scores.predicted - scores.intersection).tolist() == either.tolist()
    assert scores.miou == pytest.approx(cases.miou_again(pairs, 3), abs=1e-15)
