"""Suppression of overlapping boxes, and joining the boxes of several prompts, by hand."""

import numpy as np
import pytest

from wsss_ray.models.results import Detections
from wsss_ray.models.suppression import concatenate, suppress


def detections(rows: list[tuple[list[float], float, int]]) -> Detections:
    return Detections(
        boxes=np.array([box for box, _, _ in rows], np.float32).reshape(-1, 4),
        scores=np.array([score for _, score, _ in rows], np.float32),
        class_ids=np.array([class_id for _, _, class_id in rows], np.int32),
        phrases=tuple(f"phrase {index}" for index in range(len(rows))),
    )


ROWS = [
    ([0.0, 0.0, 10.0, 10.0], 0.5, 1),
    ([0.0, 0.0, 10.0, 8.0], 0.7, 1),  # IoU 0.8 with the first, same class
    ([0.0, 0.0, 10.0, 9.0], 0.6, 2),  # IoU 0.9 and 0.89 with them, another class
    ([50.0, 50.0, 60.0, 60.0], 0.4, 1),
]


@pytest.mark.parametrize(
    ("class_nms", "cross_class_nms", "left"),
    [
        (None, None, [0, 1, 2, 3]),
        (0.75, None, [1, 2, 3]),
        (0.85, None, [0, 1, 2, 3]),
        (None, 0.75, [1, 3]),
        (None, 0.85, [1, 0, 3]),
        (0.75, 0.75, [1, 3]),
    ],
)
def test_suppression_keeps_the_best_and_the_order(
    class_nms: float | None, cross_class_nms: float | None, left: list[int]
) -> None:
    found = suppress(detections(ROWS), class_nms=class_nms, cross_class_nms=cross_class_nms)
    assert found.phrases == tuple(f"phrase {index}" for index in sorted(left))
    assert len(suppress(Detections.empty(), class_nms=class_nms, cross_class_nms=cross_class_nms)) == 0


def test_classes_with_large_ids_and_negative_corners_do_not_meet() -> None:
    """Shifting boxes by class, the usual trick, loses precision at id 300 and lets negative corners overlap."""
    rows = [([-5.0, -5.0, 5.0, 5.0], 0.9, 299), ([-5.0, -5.0, 5.0, 5.1], 0.8, 300), ([-5.0, -5.0, 5.0, 5.2], 0.7, 1)]
    assert len(suppress(detections(rows), class_nms=0.5, cross_class_nms=None)) == 3


def test_parts_of_one_image_follow_each_other() -> None:
    joined = concatenate([detections(ROWS[:1]), Detections.empty(), detections(ROWS[2:])])
    assert joined.scores == pytest.approx([0.5, 0.6, 0.4])
    assert joined.phrases == ("phrase 0", "phrase 0", "phrase 1")
    assert len(concatenate([])) == 0
