"""Joining masks: hand-computed maps, and each built-in fusion rule against brute force over all masks."""

import numpy as np
import pytest
from fusing import fuse

from wsss_ray.models.registries import FUSION_RULES
from wsss_ray.models.results import Detections, MaskCrop

PAINTS = ["detection", "score", "area", "prob"]


def make_crop(box_index: int, mask: np.ndarray, probability: np.ndarray | None = None) -> MaskCrop:
    """Cut a whole mask to its rectangle, as the segmenter does."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom, left, right = (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) if len(rows) else (0, 0, 0, 0)
    inside = np.s_[top:bottom, left:right]
    return MaskCrop(
        box_index=box_index,
        top=int(top),
        left=int(left),
        mask=mask[inside],
        score=0.9,
        probability=None if probability is None else probability[inside],
    )


def make_detections(class_ids: list[int], scores: list[float]) -> Detections:
    return Detections(
        boxes=np.zeros((len(scores), 4), np.float32),
        scores=np.array(scores, np.float32),
        class_ids=np.array(class_ids, np.int32),
        phrases=("thing",) * len(scores),
    )


def paint_by_brute_force(
    masks: np.ndarray, detections: Detections, probabilities: np.ndarray, paint: str
) -> np.ndarray:
    """The rules pixel by pixel: of the masks that cover it, the best value; of equals, the later query."""
    label = np.zeros(masks.shape[1:], np.uint8)
    for row, column in np.ndindex(label.shape):
        best = -np.inf
        for index in np.flatnonzero(masks[:, row, column]):
            value = {
                "detection": index,
                "score": detections.scores[index],
                "area": -masks[index].sum(),
                "prob": detections.scores[index] * probabilities[index, row, column],
            }[paint]
            if value >= best:
                best = value
                label[row, column] = detections.class_ids[index]
    return label


@pytest.mark.parametrize(
    ("paint", "expected"),
    [
        ("detection", [[7, 7, 7, 5, 0], [7, 7, 7, 5, 3], [7, 7, 7, 3, 3]]),
        ("score", [[7, 5, 5, 5, 0], [7, 7, 7, 5, 3], [7, 7, 7, 3, 3]]),
        ("area", [[7, 5, 5, 5, 0], [7, 7, 3, 5, 3], [7, 3, 3, 3, 3]]),
        ("prob", [[7, 5, 7, 5, 0], [7, 7, 3, 3, 3], [7, 3, 3, 3, 3]]),
    ],
)
def test_a_map_computed_by_hand(paint: str, expected: list[list[int]]) -> None:
    masks = np.zeros((3, 3, 5), bool)
    masks[0, 1, 2:], masks[0, 2, 1:] = True, True  # class 3: 7 pixels, 0.5 x 0.95 = 0.475
    masks[1, 0, 1:4], masks[1, 1, 3] = True, True  # class 5: 4 pixels, 0.8 x 0.5 = 0.4
    masks[2, :, :3] = True  # class 7: 9 pixels, 0.6 x 0.7 = 0.42, at row 0, column 1 only 0.6 x 0.6 = 0.36
    probabilities = np.ones((3, 3, 5), np.float32) * np.array([0.95, 0.5, 0.7], np.float32)[:, None, None]
    probabilities[2, 0, 1] = 0.6
    crops = [make_crop(index, masks[index], probabilities[index]) for index in range(3)]
    detections = make_detections([3, 5, 7], [0.5, 0.8, 0.6])
    label = fuse(detections, crops, 3, 5, paint=paint, background_id=0, dtype=np.uint8)
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, expected)


@pytest.mark.parametrize("paint", PAINTS)
@pytest.mark.parametrize("seed", range(8))
def test_random_stacks_equal_brute_force_in_any_order(paint: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    count, height, width = int(generator.integers(1, 15)), 9, 13
    masks = np.zeros((count, height, width), bool)
    for mask in masks:
        (top, left), size = generator.integers(0, (height, width)), generator.integers(0, 9)
        mask[top : top + size, left : left + size] = (
            generator.random(mask[top : top + size, left : left + size].shape) < 0.8
        )
    # rounded, so that scores and products tie
    scores = generator.integers(0, 4, count) / 4
    probabilities = (generator.integers(2, 5, masks.shape) / 4).astype(np.float32)
    detections = make_detections(generator.integers(1, 200, count).tolist(), scores.tolist())
    expected = paint_by_brute_force(masks, detections, probabilities, paint)
    crops = [make_crop(index, masks[index], probabilities[index]) for index in range(count)]
    for _ in range(4):
        generator.shuffle(crops)
        label = fuse(detections, crops, height, width, paint=paint, background_id=0, dtype=np.uint8)
        np.testing.assert_array_equal(label, expected)


@pytest.mark.parametrize("order", ["rising", "falling", "inwards", "shuffled"])
def test_many_masks_in_any_order_equal_a_search_for_the_best(order: str) -> None:
    """So many that the ranks between two neighbours run out again and again."""
    count, places = 3000, 40
    generator = np.random.default_rng(0)
    covers = generator.random((count, places)) < 0.01
    scores = generator.permutation(count) / count
    by_score = np.argsort(scores)
    sequence = {
        "rising": by_score,
        "falling": by_score[::-1],
        "inwards": np.stack([by_score[: count // 2], by_score[: count // 2 - 1 : -1]], 1).ravel(),
        "shuffled": generator.permutation(count),
    }[order]
    label_map = FUSION_RULES.get("score")(1, places, background_id=60_000, dtype=np.uint16)
    for index in sequence:
        label_map.add(make_crop(index, covers[None, index]), class_id=int(index), score=scores[index], order=int(index))
    best = np.where(covers, scores[:, None], -1).argmax(0)
    np.testing.assert_array_equal(label_map.label[0], np.where(covers.any(0), best, 60_000))


def test_more_masks_than_there_are_ranks() -> None:
    label_map = FUSION_RULES.get("detection")(1, 1, background_id=0, dtype=np.uint16)
    pixel = make_crop(0, np.ones((1, 1), bool))
    middle = 2**13
    for order in range(2**14):
        if order != middle:
            label_map.add(pixel, class_id=order, score=0.5, order=order)
            assert label_map.label[0, 0] == order
    label_map.add(pixel, class_id=middle, score=0.5, order=middle)
    assert label_map.label[0, 0] == 2**14 - 1
    with pytest.raises(ValueError, match=r"more than 16384 masks: raise detector\.box_threshold"):
        label_map.add(pixel, class_id=1, score=0.5, order=2**14)


@pytest.mark.parametrize("paint", PAINTS)
def test_no_masks_and_empty_masks_leave_background(paint: str) -> None:
    label_map = FUSION_RULES.get(paint)(2, 3, background_id=9, dtype=np.uint16)
    np.testing.assert_array_equal(label_map.label, np.full((2, 3), 9))
    label_map.add(make_crop(0, np.zeros((2, 3), bool), np.zeros((2, 3), np.float32)), class_id=4, score=1.0, order=0)
    np.testing.assert_array_equal(label_map.label, np.full((2, 3), 9))
    assert label_map.label.dtype == np.uint16


@pytest.mark.parametrize("paint", ["score", "prob"])
@pytest.mark.parametrize("score", [0.0, -0.0, 1e-30])
def test_a_mask_of_no_score_covers_background_but_nothing_else(paint: str, score: float) -> None:
    whole = make_crop(1, np.ones((1, 2), bool), np.ones((1, 2), np.float32))
    half = make_crop(0, np.array([[True, False]]), np.full((1, 2), 0.001, np.float32))
    label_map = FUSION_RULES.get(paint)(1, 2, background_id=0, dtype=np.uint8)
    label_map.add(whole, class_id=2, score=score, order=1)
    label_map.add(half, class_id=1, score=0.5, order=0)
    np.testing.assert_array_equal(label_map.label, [[1, 2]])


def test_the_label_can_be_read_between_masks_and_ids_above_255_fit_16_bits() -> None:
    label_map = FUSION_RULES.get("detection")(1, 3, background_id=0, dtype=np.uint16)
    label_map.add(make_crop(5, np.array([[True, True, False]])), class_id=300, score=0.4, order=5)
    np.testing.assert_array_equal(label_map.label, [[300, 300, 0]])
    label_map.add(make_crop(2, np.array([[False, True, True]])), class_id=65_534, score=0.4, order=2)
    np.testing.assert_array_equal(label_map.label, [[300, 300, 65_534]])


def test_more_pixels_than_are_looked_up_at_once() -> None:
    label_map = FUSION_RULES.get("score")(1500, 1001, background_id=0, dtype=np.uint8)
    mask = np.zeros((1500, 1001), bool)
    mask[3:1499, 7:999] = True
    label_map.add(make_crop(0, mask), class_id=1, score=0.5, order=0)
    np.testing.assert_array_equal(label_map.label, mask.astype(np.uint8))


FULL = make_crop(0, np.ones((2, 2), bool))


@pytest.mark.parametrize(
    ("crop", "settings", "message"),
    [
        (MaskCrop(box_index=0, top=1, left=0, mask=FULL.mask, score=1.0), {}, "row 1, column 0 reaches outside"),
        (MaskCrop(box_index=0, top=0, left=3, mask=FULL.mask, score=1.0), {}, "row 0, column 3 reaches outside"),
        (FULL, {"class_id": 256}, "class id 256 does not fit a label map of uint8"),
        (FULL, {"class_id": -1}, "class id -1 does not fit"),
        (FULL, {"score": -0.1}, r"score -0\.1 of mask 0"),
        (FULL, {"score": float("nan")}, "score nan of mask 0"),
        (FULL, {"order": -1}, "order -1 of a mask"),
        (FULL, {"order": 3}, "order 3 of a mask is negative, or another mask"),
        (FULL, {}, "segment with probabilities=True"),
    ],
)
def test_unusable_masks_are_refused(crop: MaskCrop, settings: dict, message: str) -> None:
    label_map = FUSION_RULES.get("prob")(2, 4, background_id=0, dtype=np.uint8)
    before = make_crop(3, np.array([[True, False], [False, False]]), np.ones((2, 2), np.float32))
    label_map.add(before, class_id=1, score=0.5, order=3)
    with pytest.raises(ValueError, match=message):
        label_map.add(crop, **{"class_id": 1, "score": 0.5, "order": 0} | settings)
    np.testing.assert_array_equal(label_map.label, [[1, 0, 0, 0], [0, 0, 0, 0]])


def test_background_must_fit_too() -> None:
    with pytest.raises(ValueError, match="class id 256 does not fit"):
        FUSION_RULES.get("score")(1, 1, background_id=256, dtype=np.uint8)
