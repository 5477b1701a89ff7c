"""Where a human label and SAM disagree, on drawn maps."""

from __future__ import annotations

import numpy as np
import pytest
from made_runs import instance
from scipy import ndimage

from wsss_ray.audit.disagreements import Disagreement, find_disagreements
from wsss_ray.classes import ClassSet
from wsss_ray.shards.instance import Instance

CLASSES = ClassSet.from_names(["cat", "dog"])
SIZE = (40, 60)


def areas(*blocks: tuple[int, slice, slice]) -> np.ndarray:
    label = np.zeros(SIZE, np.uint8)
    for class_id, rows, columns in blocks:
        label[rows, columns] = class_id
    return label


def disagreements(
    label: np.ndarray, truth: np.ndarray, instances: list, *, width: int = 5, share: float = 0.001
) -> list[Disagreement]:
    parsed = [Instance.from_row(entry, SIZE) for entry in instances]
    return find_disagreements(label, truth, parsed, CLASSES, width=width, smallest_share=share)


CAT = areas((1, slice(10, 30), slice(10, 30)))


def test_a_part_that_the_annotator_left_out() -> None:
    label = CAT + areas((1, slice(15, 25), slice(30, 40)))
    (region,) = disagreements(label, CAT, [instance(1, label == 1, mask_score=0.9)])
    assert region == Disagreement(
        class_name="cat",
        kind="sam_only",
        other="background",
        box=(30, 15, 40, 25),
        pixels=100,
        share=100 / 2400,
        mask_score=0.9,
        score=100 / 2400 * 0.9,
    )


def test_a_part_that_sam_left_out_counts_only_beside_its_mask() -> None:
    truth = CAT + areas((1, slice(15, 25), slice(30, 40)), (1, slice(32, 40), slice(50, 60)))
    (region,) = disagreements(CAT, truth, [instance(1, CAT == 1, mask_score=0.8)])
    assert (region.kind, region.box, region.pixels, region.mask_score) == ("truth_only", (30, 15, 40, 25), 100, 0.8)


def test_outlines_small_places_and_ignored_pixels_are_none() -> None:
    ring = ndimage.binary_dilation(CAT == 1, iterations=4).astype(np.uint8)
    assert disagreements(ring, CAT, [instance(1, ring == 1)]) == []
    assert len(disagreements(ring, CAT, [instance(1, ring == 1)], width=4)) == 1
    grown = CAT + areas((1, slice(15, 25), slice(30, 40)))
    masks = [instance(1, grown == 1)]
    assert len(disagreements(grown, CAT, masks)) == 1
    assert disagreements(grown, CAT, masks, share=0.05) == []
    ignored = CAT + areas((CLASSES.ignore_id, slice(15, 25), slice(30, 40)))
    assert disagreements(grown, ignored, masks) == []


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5])
def test_thickness_is_measured_inside_the_image(width: int) -> None:
    """A band along the image's edge is as thick as what is seen of it."""
    label = areas((1, slice(0, 4), slice(0, 60)))
    found = disagreements(label, np.zeros(SIZE, np.uint8), [instance(1, label == 1)], width=width)
    assert [region.pixels for region in found] == ([240] if width <= 4 else [])


def test_another_class_is_told_once_from_the_side_of_sam() -> None:
    truth = CAT * np.uint8(2)
    instances = [instance(1, CAT == 1, mask_score=0.7), instance(2, np.zeros(SIZE, bool))]
    (region,) = disagreements(CAT, truth, instances)
    assert (region.class_name, region.kind, region.other, region.pixels) == ("cat", "sam_only", "dog", 400)


def test_the_surest_and_largest_place_comes_first() -> None:
    small, large = areas((1, slice(0, 10), slice(0, 10))), areas((1, slice(20, 40), slice(20, 40)))
    truth = np.zeros(SIZE, np.uint8)
    sure = [instance(1, small == 1, mask_score=1.3), instance(1, large == 1, mask_score=0.2)]
    assert [region.mask_score for region in disagreements(small + large, truth, sure)] == [1.0, 0.2]
    assert [region.pixels for region in disagreements(small + large, truth, sure)] == [100, 400]
    equal = [instance(1, small == 1), instance(1, large == 1)]
    assert [region.pixels for region in disagreements(small + large, truth, equal)] == [400, 100]


def test_equal_labels_have_no_disagreement() -> None:
    assert disagreements(CAT, CAT, [instance(1, CAT == 1)]) == []
    assert disagreements(CAT, CAT, []) == []
