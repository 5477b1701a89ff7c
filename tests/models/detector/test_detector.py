"""The detector on random small networks: batches, groups, prompts, order of tags, and refused inputs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from wsss_ray.classes import ClassSet, UnknownTagError
from wsss_ray.config import DetectorConfig
from wsss_ray.models.detector.network import GroundingDino
from wsss_ray.models.detector.prompts import PromptBuilder
from wsss_ray.models.results import Detections
from wsss_ray.models.suppression import concatenate

FAMILIES = ["grounding-dino", "mm-grounding-dino"]
VOC = ClassSet.load("voc-raw")
TAGS = [["dog", "person"], ["horse", "dining table", "cat"], ["bus"], [], ["tv monitor"], ["sheep", "cow"]]


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Return six images of four sizes. The first, third and fifth have one size; the last has the same network size."""
    generator = np.random.default_rng(0)
    sizes = [(375, 500), (500, 375), (375, 500), (60, 60), (375, 500), (240, 320)]
    coarse = generator.integers(0, 256, (len(sizes), 32, 32, 3), dtype=np.uint8)
    return [
        picture.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]
        for picture, (height, width) in zip(coarse, sizes, strict=True)
    ]


Make = Callable[..., GroundingDino]


@pytest.fixture(scope="module")
def make(detectors: dict[str, Path]) -> Make:
    def make_detector(family: str = "grounding-dino", class_set: ClassSet = VOC, **settings: object) -> GroundingDino:
        settings = {"box_threshold": 0.25, "device": "cpu"} | settings
        return GroundingDino(DetectorConfig(model=str(detectors[family]), **settings), class_set)

    return make_detector


def assert_equal(ours: Detections, theirs: Detections, tolerance: float = 1e-5) -> None:
    """Assert equal boxes in equal order; the tolerance is relative to the image's 500 pixels."""
    assert ours.phrases == theirs.phrases
    assert ours.class_ids.tolist() == theirs.class_ids.tolist()
    np.testing.assert_allclose(ours.boxes, theirs.boxes, rtol=0, atol=500 * tolerance)
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=0, atol=tolerance)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_equals_its_members_one_by_one(make: Make, images: list[np.ndarray], family: str) -> None:
    together = make(family, batch_size=8).detect(images, TAGS)
    one_by_one = make(family, batch_size=1)
    assert [len(found) > 0 for found in together] == [True, True, True, False, True, True]
    for image, tags, found in zip(images, TAGS, together, strict=True):
        assert_equal(found, one_by_one.detect([image], [tags])[0])
        assert (found.scores > 0.25).all()
        assert {VOC.by_id[class_id].name for class_id in found.class_ids} <= set(tags)


def test_only_equal_network_sizes_run_together_and_unpadded(make: Make, images: list[np.ndarray]) -> None:
    detector = make(batch_size=2)
    shapes = []
    detector.network.model.register_forward_pre_hook(
        lambda module, arguments, keywords: shapes.append(tuple(keywords["pixel_values"].shape)), with_kwargs=True
    )
    detector.detect(images, TAGS)
    assert shapes == [(2, 3, 160, 213), (2, 3, 160, 213), (1, 3, 213, 160)]


def test_the_order_of_images_and_tags_does_not_matter(make: Make, images: list[np.ndarray]) -> None:
    detector = make()
    found = detector.detect(images, TAGS)
    turned = detector.detect(images[::-1], [tags[::-1] for tags in TAGS[::-1]])
    for ours, theirs in zip(found, turned[::-1], strict=True):
        assert_equal(ours, theirs)


def test_an_image_without_tags_runs_no_model(make: Make, images: list[np.ndarray]) -> None:
    detector = make()
    detector.network.model.forward = None  # any call would fail
    found = detector.detect(images[:2], [[], []])
    assert [len(boxes) for boxes in found] == [0, 0]
    assert detector.detect([], []) == []


def test_long_prompts_split_and_follow_each_other(make: Make, images: list[np.ndarray]) -> None:
    """All 80 COCO names, spelled in small pieces, are several prompts; each gives the same boxes as alone."""
    coco = ClassSet.load("coco")
    detector = make("mm-grounding-dino", coco, batch_size=2)
    prompts = PromptBuilder(coco, detector.tokenizer).build(coco.names)
    assert len(prompts) > 2
    assert max(len(prompt.input_ids) for prompt in prompts) > 240
    found = detector.detect(images[:2], [coco.names, ["dog"]])
    parts = [detector.detect(images[:1], [prompt.phrases])[0] for prompt in prompts]  # COCO's phrases are its names
    assert all(len(part) for part in parts)
    assert_equal(found[0], concatenate(parts))
    assert_equal(found[1], detector.detect(images[1:2], [["dog"]])[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_autocast_with_boxes_in_float32(make: Make, images: list[np.ndarray], family: str) -> None:
    exact = make(family, box_threshold=0.0).detect(images[:1], TAGS[:1])[0]
    fast = make(family, box_threshold=0.0, precision="bfloat16").detect(images[:1], TAGS[:1])[0]
    assert fast.boxes.dtype == fast.scores.dtype == np.float32
    assert len(fast) == len(exact)
    moved = np.abs(fast.boxes - exact.boxes).max(1)
    assert moved.max() > 0
    assert np.mean(moved < 5) > 0.1  # the rest: random networks rank places closely, and those that swap change wholly


def test_reference_mode_keeps_a_part_of_parent_mode(make: Make, images: list[np.ndarray]) -> None:
    parent = make(box_threshold=0.0).detect(images[:1], TAGS[:1])[0]
    reference = make(box_threshold=0.0, mode="reference").detect(images[:1], TAGS[:1])[0]
    kept = {tuple(box) for box in reference.boxes.tolist()}
    assert 0 < len(reference) < len(parent) == 60
    assert kept < {tuple(box) for box in parent.boxes.tolist()}


def test_pictures_of_one_pixel_and_of_extreme_sides(make: Make) -> None:
    detector = make(resize="published", preprocessing="pil")
    pictures = [np.full((height, width, 3), 90, np.uint8) for height, width in [(1, 1), (200, 8000), (8000, 1)]]
    found = detector.detect(pictures, [["dog"]] * 3)
    assert all(np.isfinite(boxes.boxes).all() for boxes in found)


def test_padding_images_would_move_boxes(make: Make, images: list[np.ndarray]) -> None:
    """Why they are never padded: the same picture beside empty columns, masked away, gives other boxes."""
    detector = make()
    pixels = detector.pixels.apply([images[0]], (160, 213), torch.device("cpu"))
    padded = torch.nn.functional.pad(pixels, (0, 54))
    mask = torch.zeros(1, 160, 267, dtype=torch.long)
    mask[..., :213] = 1
    input_ids = torch.tensor([[101, 1045, 1012, 102]])
    with detector.compute.running():
        alone = detector.network(pixel_values=pixels, input_ids=input_ids)
        beside = detector.network(pixel_values=padded, pixel_mask=mask, input_ids=input_ids)
    assert (alone.logits[..., :4] - beside.logits[..., :4]).abs().max() > 0.1


@pytest.mark.parametrize(
    "image",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)],
)
def test_what_is_no_rgb_picture_is_refused(make: Make, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8 RGB"):
        make().detect([image], [["dog"]])


def test_wrong_tags_are_refused(make: Make, images: list[np.ndarray]) -> None:
    with pytest.raises(UnknownTagError, match="horse"):
        make().detect(images[:1], [["hors"]])
    with pytest.raises(ValueError, match="2 images and 1 lists of tags"):
        make().detect(images[:2], [["dog"]])


def test_a_class_set_that_the_tokenizer_cannot_read_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="no token that the detector knows"):
        make(class_set=ClassSet.from_names(["dog", "犬"]))


def test_out_of_memory_takes_smaller_batches_from_then_on(make: Make, images: list[np.ndarray]) -> None:
    detector = make(batch_size=8)
    whole = detector.detect(images, TAGS)
    limit, sizes = 2, []

    def check(module: torch.nn.Module, arguments: tuple[object, ...], keywords: dict[str, torch.Tensor]) -> None:
        sizes.append(len(keywords["pixel_values"]))
        if sizes[-1] > limit:
            raise torch.OutOfMemoryError

    detector.network.model.register_forward_pre_hook(check, with_kwargs=True)
    for ours, theirs in zip(detector.detect(images, TAGS), whole, strict=True):
        assert_equal(ours, theirs)
    assert detector._batches.retries == 1  # 3 of one size -> 1
    assert max(sizes[1:]) <= limit
    limit = 0
    with pytest.raises(torch.OutOfMemoryError):
        detector.detect(images[:1], TAGS[:1])
