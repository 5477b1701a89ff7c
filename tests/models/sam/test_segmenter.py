"""The segmenter against segment-anything's predictor, one image at a time, on real photos."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import random_models
import torch
from PIL import Image
from sam_cases import (
    LIKE_VIT_B,
    Reference,
    assert_masks_agree,
    predict_one_by_one,
    random_boxes,
    segment,
    whole_mask,
)

from wsss_ray.config import SegmenterConfig
from wsss_ray.models.results import MaskCrop
from wsss_ray.models.sam.boxes import SamBoxes
from wsss_ray.models.sam.loading import load_sam

COUNTS = [3, 0, 1, 30, 7, 4, 0, 12]
"""Boxes of the eight photos."""
Make = Callable[..., SamBoxes]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_models.write_sam(tmp_path_factory.mktemp("segmenter"), seed=1)


@pytest.fixture(scope="module")
def make(weights: Path) -> Make:
    def make_segmenter(**settings: object) -> SamBoxes:
        return SamBoxes(SegmenterConfig(**{"model": "tiny", "checkpoint": str(weights), "device": "cpu"} | settings))

    return make_segmenter


@dataclass(frozen=True, kw_only=True)
class Case:
    """Photos, boxes of each, and the results of segment-anything."""

    photos: list[np.ndarray]
    boxes: list[np.ndarray]
    references: list[Reference]


@pytest.fixture(scope="module")
def case(weights: Path, shared: Path) -> Case:
    voc = sorted((shared / "data/voc/VOCdevkit/VOC2012/JPEGImages").glob("*.jpg"))
    coco = sorted((shared / "data/coco/images/val2017").glob("*.jpg"))
    paths = [*voc[:: len(voc) // 4][:4], *coco[:: len(coco) // 4][:4]]
    photos = [np.array(Image.open(path).convert("RGB")) for path in paths]
    generator = np.random.default_rng(5)
    boxes = [random_boxes(generator, n, *photo.shape[:2]) for n, photo in zip(COUNTS, photos, strict=True)]
    return Case(photos=photos, boxes=boxes, references=predict_one_by_one(load_sam("tiny", weights), photos, boxes))


def assert_bits_equal(ours: list[list[MaskCrop]], theirs: list[list[MaskCrop]]) -> None:
    for crops, others in zip(ours, theirs, strict=True):
        for crop, other in zip(crops, others, strict=True):
            assert (crop.box_index, crop.top, crop.left) == (other.box_index, other.top, other.left)
            assert crop.score == other.score
            np.testing.assert_array_equal(crop.mask, other.mask)


def test_the_case_is_hard_enough(case: Case) -> None:
    """Preconditions: otherwise agreement would say little."""
    assert len({photo.shape for photo in case.photos}) >= 6
    shares = [(reference.logits > 0).mean((1, 2)) for reference in case.references if len(reference.scores)]
    assert all(0.02 < share < 0.98 for image in shares for share in image)
    assert all(np.ptp(image) > 0.05 for image in shares if len(image) > 5), "boxes hardly matter"
    borders = [np.abs(np.diff(reference.logits > 0, axis=2)).sum() for reference in case.references]
    assert all(border > 100 for border, image in zip(borders, COUNTS, strict=True) if image)


@pytest.mark.parametrize(("images", "chunk"), [(4, None), (1, 1), (3, 5), (8, 64)])
def test_masks_equal_the_predictors(
    make: Make,
    case: Case,
    images: int,
    chunk: int | None,
) -> None:
    found = segment(make(batch_size=images, boxes_per_chunk=chunk), case.photos, case.boxes)
    different = [assert_masks_agree(crops, theirs) for crops, theirs in zip(found, case.references, strict=True)]
    assert sum(different) <= 1e-5 * sum(theirs.logits.size for theirs in case.references)


def test_a_network_with_padded_windows_equals_the_predictors(case: Case, tmp_path: Path) -> None:
    weights = random_models.write_sam(tmp_path, seed=2, config=LIKE_VIT_B)
    few = [image_boxes[:3] for image_boxes in case.boxes]
    found = segment(SamBoxes(SegmenterConfig(model="tiny", checkpoint=str(weights), device="cpu")), case.photos, few)
    references = predict_one_by_one(load_sam("tiny", weights), case.photos, few)
    assert len({round((logits > 0).mean(), 2) for theirs in references for logits in theirs.logits}) > 5
    for crops, theirs in zip(found, references, strict=True):
        assert_masks_agree(crops, theirs)


def test_company_does_not_change_a_bit(make: Make, case: Case) -> None:
    together = segment(make(batch_size=8), case.photos, case.boxes)
    segmenter = make(batch_size=1)
    alone = [
        segment(segmenter, [photo], [image_boxes])[0]
        for photo, image_boxes in zip(case.photos, case.boxes, strict=True)
    ]
    assert_bits_equal(together, alone)
    few = [image_boxes[::2] for image_boxes in case.boxes]
    for crops, some in zip(together, segment(segmenter, case.photos, few), strict=True):
        for crop, other in zip(crops[::2], some, strict=True):
            assert crop.score == other.score
            np.testing.assert_array_equal(crop.mask, other.mask)


def test_masks_come_by_image_and_box(make: Make, case: Case) -> None:
    segmenter = make(batch_size=3)
    stream = segmenter.masks(segmenter.prepare(case.photos, case.boxes))
    order = [(index, crop.box_index) for index, crop in stream]
    assert order == [(index, box) for index, count in enumerate(COUNTS) for box in range(count)]


def test_images_without_boxes_are_not_encoded(make: Make, case: Case) -> None:
    segmenter = make(batch_size=1)
    encoded = []
    segmenter._encoder._sam.image_encoder.register_forward_pre_hook(lambda _, inputs: encoded.append(len(inputs[0])))
    none = np.zeros((0, 4), np.float32)
    assert segment(segmenter, case.photos[:2], [none, none]) == [[], []]
    assert segment(segmenter, case.photos[:1], [[]]) == [[]]
    assert segment(segmenter, [], []) == []
    assert encoded == []
    segment(segmenter, case.photos[:2], [none, np.array([[5, 5, 50, 60]], np.float32)])
    assert encoded == [1]


def test_probabilities_are_those_of_the_masks(make: Make, case: Case) -> None:
    for crops, theirs in zip(
        segment(make(), case.photos, case.boxes, probabilities=True), case.references, strict=True
    ):
        for crop, logits in zip(crops, theirs.logits, strict=True):
            height, width = crop.mask.shape
            window = logits[crop.top : crop.top + height, crop.left : crop.left + width]
            assert crop.probability is not None
            np.testing.assert_allclose(crop.probability, 1 / (1 + np.exp(-window)), rtol=0, atol=1e-5)
            assert (crop.probability[crop.mask] >= 0.5).all()
    (crops,) = segment(make(), case.photos[:1], case.boxes[:1])
    assert all(crop.probability is None for crop in crops)


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (1, 1, [0, 0, 1, 1]),
        (200, 8000, [100, 20, 5000, 150]),
        (8000, 200, [20, 100, 150, 5000]),
        (300, 400, [-500, -20, 900, 5000]),  # outside
        (300, 400, [200, 100, 200, 100]),  # a point
        (300, 400, [300, 200, 100, 50]),  # swapped corners
    ],
)
def test_awkward_images_and_boxes_equal_the_predictors(
    make: Make, weights: Path, height: int, width: int, box: list[float]
) -> None:
    generator = np.random.default_rng(height)
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    prompts = np.array([box, [0, 0, width, height]], np.float32)
    (crops,) = segment(make(), [image], [prompts])
    (reference,) = predict_one_by_one(load_sam("tiny", weights), [image], [prompts])
    assert_masks_agree(crops, reference)


def test_an_image_too_slim_for_the_package_has_masks(make: Make) -> None:
    """2 x 5000 pixels are 0.05 x 128 at the network's size: the package resizes to no row at all."""
    image = np.full((2, 5000, 3), 90, np.uint8)
    ((crop,),) = segment(make(), [image], [np.array([[10, 0, 3000, 2]], np.float32)])
    assert whole_mask(crop, 2, 5000).shape == (2, 5000)


def test_a_side_too_long_is_refused(make: Make) -> None:
    image = np.zeros((1, 70_000, 3), np.uint8)
    with pytest.raises(ValueError, match="70000 x 1 pixels: the segmenter takes sides up to 65536"):
        segment(make(), [image], [np.array([[0, 0, 9, 1]], np.float32)])


@pytest.mark.parametrize(
    ("image", "box", "message"),
    [
        (np.zeros((4, 4, 3), np.uint8), [0, 0, np.nan, 4], r"box 1 of image 1 is \[0.0, 0.0, nan, 4.0\]"),
        (np.zeros((4, 4, 3), np.uint8), [0, 0, np.inf, 4], "must be finite"),
        (np.zeros((4, 4, 3), np.uint8), [0, 0, 4], r"boxes of image 1 have shape \(2, 3\)"),
        (np.zeros((4, 4, 3), np.float32), [0, 0, 1, 1], "image 1 is float32"),
        (np.zeros((4, 4), np.uint8), [0, 0, 1, 1], r"of shape \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), [0, 0, 1, 1], r"of shape \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), [0, 0, 1, 1], r"of shape \(0, 4, 3\)"),
    ],
)
def test_unusable_input_is_refused_by_name(make: Make, image: np.ndarray, box: list[float], message: str) -> None:
    good = np.zeros((4, 4, 3), np.uint8)
    prompts = np.array([np.zeros(len(box)), box], np.float32)
    with pytest.raises(ValueError, match=message):
        segment(make(), [good, image], [np.zeros((0, 4), np.float32), prompts])


def test_images_and_boxes_must_match(make: Make) -> None:
    with pytest.raises(ValueError, match="shorter"):
        segment(make(), [np.zeros((4, 4, 3), np.uint8)] * 2, [np.zeros((0, 4), np.float32)])


def fail_above(limit: int) -> Callable[[torch.nn.Module, tuple[torch.Tensor, ...]], None]:
    """Return a hook that raises as a full device does when a module receives more than `limit` items."""

    def check(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > limit:
            raise torch.OutOfMemoryError

    return check


def test_out_of_memory_takes_fewer_boxes_from_then_on(make: Make, case: Case) -> None:
    segmenter = make(boxes_per_chunk=32)
    segmenter._decoder._iou_head.register_forward_pre_hook(fail_above(3))
    found = segment(segmenter, case.photos, case.boxes)
    assert segmenter._box_pieces.retries == 4  # 32 (or what there is) -> 17 -> 8 -> 4 -> 2
    for crops, theirs in zip(found, case.references, strict=True):
        assert_masks_agree(crops, theirs)
    segment(segmenter, case.photos, case.boxes)
    assert segmenter._box_pieces.retries == 4


def test_out_of_memory_with_a_single_box_is_raised(make: Make, case: Case) -> None:
    segmenter = make(boxes_per_chunk=2)
    segmenter._decoder._iou_head.register_forward_pre_hook(fail_above(0))
    with pytest.raises(torch.OutOfMemoryError):
        segment(segmenter, case.photos[:1], case.boxes[:1])


def test_bfloat16_is_near(make: Make, case: Case) -> None:
    """bfloat16 also runs on the CPU; the other tests use float32."""
    found = segment(make(precision="bfloat16"), case.photos, case.boxes)
    agreement = [
        (whole_mask(crop, *logits.shape) == (logits > 0)).mean()
        for crops, theirs in zip(found, case.references, strict=True)
        for crop, logits in zip(crops, theirs.logits, strict=True)
    ]
    assert 0.9 < np.mean(agreement) < 1
