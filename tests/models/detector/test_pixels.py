"""Size rules and pixels, against the definitions of the rules and the checkpoint's own processor."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from transformers import AutoConfig, GroundingDinoImageProcessor, GroundingDinoImageProcessorPil

from wsss_ray.models.detector.files import load_processor
from wsss_ray.models.detector.pixels import PixelTransform, processor_size, published_size

CPU = torch.device("cpu")


def transform(**changes: object) -> PixelTransform:
    """The published checkpoint's numbers, with changes."""
    published = PixelTransform(
        shortest_edge=800,
        longest_edge=1333,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        resize="published",
        backend="pil",
        strides=(8, 16, 32, 64),
        num_queries=900,
    )
    return dataclasses.replace(published, **changes)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ((375, 500), (800, 1066)),  # 800 x 500 / 375 = 1066.67, truncated
        ((500, 375), (1066, 800)),
        ((612, 612), (800, 800)),
        ((800, 900), (800, 900)),
        ((269, 500), (717, 1332)),  # capped: 1333 x 269 / 500 = 717.15; 717 x 500 / 269 = 1332.7
        ((361, 640), (752, 1333)),  # capped: 751.9 rounds up; 752 x 640 / 361 = 1333.2
        ((640, 361), (1333, 752)),
        ((200, 8000), (33, 1320)),
        ((1, 1), (800, 800)),
    ],
)
def test_published_size(image: tuple[int, int], expected: tuple[int, int]) -> None:
    assert published_size(*image, 800, 1333) == expected
    assert reference.network_size(*image, 800, 1333) == expected
    assert transform().network_size(*image) == expected


def test_the_rules_differ_only_where_the_cap_applies() -> None:
    assert processor_size(269, 500, 800, 1333) == (717, 1333)
    for height, width in [(375, 500), (333, 500), (640, 427), (612, 612), (100, 130)]:
        assert processor_size(height, width, 800, 1333) == published_size(height, width, 800, 1333)


def test_processor_size_is_the_processors() -> None:
    processor = GroundingDinoImageProcessor(size={"shortest_edge": 80, "longest_edge": 133})
    rule = transform(shortest_edge=80, longest_edge=133, resize="processor", num_queries=1)
    for height, width in [(37, 50), (27, 50), (50, 27), (64, 36), (61, 61), (20, 300)]:
        pixels = processor(np.zeros((height, width, 3), np.uint8), return_tensors="pt")["pixel_values"]
        assert rule.network_size(height, width) == tuple(pixels.shape[-2:])


@pytest.mark.parametrize("image", [(1, 8000), (8000, 1), (1, 100000), (20, 8000), (1, 2000)])
def test_a_very_narrow_image_gets_places_enough(image: tuple[int, int]) -> None:
    pixels = transform()
    height, width = pixels.network_size(*image)
    assert pixels.positions(height, width) >= 900
    assert max(height, width) <= 1333
    assert (height < width) == (image[0] < image[1])
    narrower = (height - 1, width) if height < width else (height, width - 1)
    assert pixels.positions(*narrower) < 900


@pytest.mark.parametrize("family", ["grounding-dino", "mm-grounding-dino"])
def test_numbers_come_from_the_checkpoint(detectors: dict[str, Path], family: str) -> None:
    directory = detectors[family]
    pixels = PixelTransform.of(
        load_processor(directory).image_processor,
        AutoConfig.from_pretrained(directory),
        resize="processor",
        backend="torchvision",
    )
    assert (pixels.shortest_edge, pixels.longest_edge) == (160, 267)
    assert pixels.mean == (0.485, 0.456, 0.406)
    assert pixels.strides == (8, 16, 32, 64)
    assert pixels.num_queries == 60


def test_pil_backend_is_the_processors_and_the_references(shared: Path) -> None:
    photo = shared / "data/voc/VOCdevkit/VOC2012/JPEGImages/2007_000063.jpg"
    image = reference.read_rgb(photo)
    ours = transform(shortest_edge=160, longest_edge=267).apply([image], (160, 213), CPU)
    processor = GroundingDinoImageProcessorPil(size={"shortest_edge": 160, "longest_edge": 267})
    theirs = processor(image, return_tensors="pt")["pixel_values"]
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_torchvision_backend_is_within_one_level(shared: Path) -> None:
    image = reference.read_rgb(shared / "data/voc/VOCdevkit/VOC2012/JPEGImages/2007_000063.jpg")
    image.flags.writeable = False  # as arrays from shared memory are
    pil = transform().apply([image], (160, 213), CPU)
    fast = transform(backend="torchvision").apply([image], (160, 213), CPU)
    levels = (pil - fast).abs() * torch.tensor([0.229, 0.224, 0.225])[:, None, None] * 255
    assert levels.max() < 1.01
    assert (levels > 0.5).float().mean() < 0.01


def test_a_processor_of_another_kind_is_refused() -> None:
    config = AutoConfig.for_model("grounding-dino")
    for changes, message in [
        ({"size": {"height": 100, "width": 100}}, "both edges"),
        ({"resample": 3}, "not bilinear"),
    ]:
        processor = GroundingDinoImageProcessor()
        for name, value in changes.items():
            setattr(processor, name, type("Size", (), {"shortest_edge": None})() if name == "size" else value)
        with pytest.raises(ValueError, match=message):
            PixelTransform.of(processor, config, resize="processor", backend="pil")
