"""What the audit finds in one label, on maps small enough to count by hand."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
from made_runs import Made, instance, label_row

from wsss_ray.audit.checks import box_overlaps, check_row
from wsss_ray.audit.findings import WEIGHTS, Finding, score
from wsss_ray.classes import ClassSet
from wsss_ray.config import AuditConfig
from wsss_ray.shards.label_row import LabelRow

CLASSES = ClassSet.from_names(["cat", "dog", "bird"])
CONFIG = AuditConfig(labels="l", images="i", output="o")


def block(height: int, width: int, rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[rows, columns] = True
    return mask


def check(made: Made, config: AuditConfig = CONFIG, threshold: float | None = 0.3) -> list[Finding]:
    return check_row(parsed(made), CLASSES, config, threshold)[0]


def parsed(made: Made) -> LabelRow:
    return LabelRow.from_row(label_row(made, CLASSES, None))


def test_a_sound_label_gives_no_finding() -> None:
    mask = block(10, 10, slice(2, 8), slice(2, 8))
    made = Made(image_id="a", label=mask.astype(np.uint8), tags=["cat"], instances=[instance(1, mask)])
    findings, pixels = check_row(parsed(made), CLASSES, CONFIG, 0.3)
    assert findings == []
    assert pixels == {1: 36}
    assert score(findings) == 0


def test_a_failed_image_comes_first() -> None:
    findings = check(Made(image_id="a", label=None, size=(4, 5), error="decode: truncated"))
    assert [(finding.kind, finding.text) for finding in findings] == [("failed", "failed: decode: truncated")]
    assert score(findings) == 1


@pytest.mark.parametrize(
    ("instances", "told"),
    [
        ([], "no box was found"),
        ([instance(2, block(10, 10, slice(0, 3), slice(0, 3)))], "other masks cover it"),
        (None, "has no pixel"),
    ],
)
def test_tags_without_pixels(instances: list[dict[str, Any]] | None, told: str) -> None:
    label = block(10, 10, slice(2, 8), slice(2, 8)).astype(np.uint8)
    (finding,) = check(Made(image_id="a", label=label, tags=["cat", "dog"], instances=instances))
    assert (finding.kind, finding.class_name, finding.strength) == ("tag_without_pixels", "dog", 1)
    assert told in finding.text


def test_shares_of_the_image() -> None:
    label = np.ones((100, 100), np.uint8)
    label[0, :5] = 2  # 0.05 %
    label[1, :10] = 3  # exactly 0.1 %: not under it
    most, little = check(Made(image_id="a", label=label, instances=None))
    assert (most.kind, most.class_name, most.value) == ("covers_most", "cat", 0.9985)
    assert most.strength == pytest.approx((0.9985 - 0.95) / 0.05)
    assert (little.kind, little.class_name, little.value) == ("covers_little", "dog", 0.0005)
    assert little.strength == pytest.approx(0.5)


def test_much_background_is_no_finding() -> None:
    assert check(Made(image_id="a", label=np.zeros((10, 10), np.uint8), instances=[])) == []


def test_two_classes_on_one_object() -> None:
    mask = block(10, 10, slice(0, 8), slice(0, 10))
    lower = block(10, 10, slice(0, 9), slice(0, 10))
    instances = [
        instance(2, mask, score=0.6),
        instance(1, lower, score=0.5),
        instance(3, block(10, 10, slice(0, 2), slice(0, 2)), score=0.9),
        instance(1, lower, score=0.7),  # of the same class as the second: no pair
    ]
    label = np.where(mask, 2, np.where(lower, 1, 0)).astype(np.uint8)
    (finding,) = check(Made(image_id="a", label=label, instances=instances))
    assert (finding.kind, finding.class_name) == ("same_object", "cat")
    assert finding.value == pytest.approx(80 / 90)
    assert finding.strength == pytest.approx(80 / 90)
    assert finding.text == "cat (0.50) and dog (0.60) on one object: IoU 0.89 of the boxes, 0.89 of the masks"


def test_two_things_in_one_box_are_a_weak_finding_and_far_boxes_none() -> None:
    rider, horse = block(10, 10, slice(0, 5), slice(0, 10)), block(10, 10, slice(5, 10), slice(0, 10))
    label = np.where(rider, 1, 2).astype(np.uint8)
    box = (0, 0, 10, 10)
    (finding,) = check(
        Made(image_id="a", label=label, instances=[instance(1, rider, box=box), instance(2, horse, box=box)])
    )
    assert (finding.value, finding.strength) == (1, 0.5)
    assert check(Made(image_id="a", label=label, instances=[instance(1, rider), instance(2, horse)])) == []


def test_masks_tell_of_one_object_where_the_boxes_do_not() -> None:
    mask = block(10, 10, slice(0, 5), slice(0, 5))
    instances = [instance(1, mask, box=(0, 0, 5, 5)), instance(2, mask, box=(0, 0, 5, 10))]
    (finding,) = check(Made(image_id="a", label=mask.astype(np.uint8), instances=instances))
    assert (finding.value, finding.strength) == (1, 0.75)


def test_box_overlaps_by_hand() -> None:
    boxes = np.array([[0, 0, 4, 4], [2, 0, 6, 4], [5, 5, 5, 9], [0, 0, 4, 4]], float)
    expected = [[1, 1 / 3, 0, 1], [1 / 3, 1, 0, 1 / 3], [0, 0, 0, 0], [1, 1 / 3, 0, 1]]
    np.testing.assert_allclose(box_overlaps(boxes), expected)


def test_low_mask_scores_are_told_per_class() -> None:
    mask = block(10, 10, slice(2, 8), slice(2, 8))
    instances = [instance(1, mask, mask_score=value) for value in (0.35, 0.9, 0.6)] + [instance(2, mask & False)]
    (finding,) = check(Made(image_id="a", label=mask.astype(np.uint8), instances=instances))
    assert (finding.kind, finding.class_name) == ("low_mask_score", "cat")
    assert finding.value == pytest.approx(0.35)
    assert finding.strength == pytest.approx(0.5)
    assert "2 of 3 masks" in finding.text


@pytest.mark.parametrize(("threshold", "strength"), [(0.3, 0.5), (0.31, 1 - 0.005 / 0.03), (0.2, None), (None, None)])
def test_scores_near_the_run_s_own_threshold(threshold: float | None, strength: float | None) -> None:
    mask = block(10, 10, slice(2, 8), slice(2, 8))
    made = Made(image_id="a", label=mask.astype(np.uint8), instances=[instance(1, mask, score=0.315)])
    findings = check(made, threshold=threshold)
    assert [finding.kind for finding in findings] == ([] if strength is None else ["near_threshold"])
    assert [finding.strength for finding in findings] == ([] if strength is None else [pytest.approx(strength)])


def test_limits_of_zero_and_one_switch_checks_off() -> None:
    config = AuditConfig(
        labels="l", images="i", output="o", largest_share=1, smallest_share=0, low_mask_score=0, near_threshold=0
    )
    label = np.ones((100, 100), np.uint8)
    label[0, 0] = 2
    instances = [instance(1, label == 1, score=0.3, mask_score=-0.1)]
    assert check(Made(image_id="a", label=label, instances=instances), config) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"label": b"no PNG"}, "cannot be read"),
        ({"height": 9}, "too many pixels|wrong size"),
        ({"width": 11}, "wrong size"),
        ({"label": None}, "the row has no label"),
    ],
)
def test_a_damaged_row_is_a_finding_not_an_end(change: dict[str, Any], told: str) -> None:
    made = Made(image_id="a", label=np.ones((10, 10), np.uint8), instances=None)
    row = dataclasses.replace(parsed(made), **change)
    (finding,), pixels = check_row(row, CLASSES, CONFIG, 0.3)
    assert finding.kind == "failed"
    assert pixels == {}
    assert re.search(told, finding.text)


def test_the_score_joins_the_strongest_of_each_kind() -> None:
    findings = [
        Finding(kind="low_mask_score", strength=0.2, text=""),
        Finding(kind="low_mask_score", strength=0.6, text=""),
        Finding(kind="near_threshold", strength=1.0, text=""),
    ]
    assert WEIGHTS["low_mask_score"] == 0.5
    assert WEIGHTS["near_threshold"] == 0.3
    assert score(findings) == pytest.approx(1 - 0.7 * 0.7)
