"""`kernels: stock` keeps the packages' own layers, and both settings give equal boxes and masks but for rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import random_models
from sam_cases import random_boxes, segment, whole_mask
from torch import nn

from wsss_ray.classes import ClassSet
from wsss_ray.config import DetectorConfig, SegmenterConfig
from wsss_ray.models.detector.network import GroundingDino
from wsss_ray.models.sam.boxes import SamBoxes

BOX_PIXELS, SCORE, PROBABILITY = 0.05, 1e-4, 1e-4
"""Largest differences."""


def images() -> list[np.ndarray]:
    """Return three images of smooth random colors."""
    generator = np.random.default_rng(0)
    coarse = [generator.integers(0, 256, (rows, columns, 3), np.uint8) for rows, columns in ((9, 12), (12, 9), (5, 14))]
    return [image.repeat(25, 0).repeat(25, 1) for image in coarse]


def fast_layers(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if type(module).__module__.startswith("wsss_ray.")]


@pytest.mark.parametrize("family", ["grounding-dino", "mm-grounding-dino"])
def test_detector(family: str, detectors: dict[str, Path]) -> None:
    tags = [["dog", "cat"], ["person"], ["bus", "sofa", "bird"]]
    auto, stock = (
        GroundingDino(
            DetectorConfig(model=str(detectors[family]), box_threshold=0.2, device="cpu", kernels=kernels),  # type: ignore[arg-type]
            ClassSet.load("voc"),
        )
        for kernels in ("auto", "stock")
    )
    assert fast_layers(auto.network)
    assert not fast_layers(stock.network)
    pairs = list(zip(auto.detect(images(), tags), stock.detect(images(), tags), strict=True))
    assert sum(len(expected) for _, expected in pairs) >= 10
    for found, expected in pairs:
        np.testing.assert_array_equal(found.class_ids, expected.class_ids)
        assert found.phrases == expected.phrases
        np.testing.assert_allclose(found.boxes, expected.boxes, rtol=0, atol=BOX_PIXELS)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=SCORE)


def test_segmenter(tmp_path: Path) -> None:
    weights = random_models.write_sam(tmp_path, seed=1)
    auto, stock = (
        SamBoxes(SegmenterConfig(model="tiny", checkpoint=str(weights), device="cpu", kernels=kernels))  # type: ignore[arg-type]
        for kernels in ("auto", "stock")
    )
    assert fast_layers(auto._encoder._network)
    assert not fast_layers(stock._encoder._network)
    generator = np.random.default_rng(1)
    boxes = [random_boxes(generator, count, *image.shape[:2]) for image, count in zip(images(), (3, 0, 5), strict=True)]
    found, expected = (segment(segmenter, images(), boxes, probabilities=True) for segmenter in (auto, stock))
    assert [len(crops) for crops in expected] == [3, 0, 5]
    for image, ours, theirs in zip(images(), found, expected, strict=True):
        for crop, stock_crop in zip(ours, theirs, strict=True):
            assert stock_crop.mask.any()
            assert crop.box_index == stock_crop.box_index
            assert abs(crop.score - stock_crop.score) < SCORE
            difference = whole_mask(crop, *image.shape[:2]) != whole_mask(stock_crop, *image.shape[:2])
            assert difference.mean() < 1e-4
            if crop.mask.shape == stock_crop.mask.shape:
                np.testing.assert_allclose(crop.probability, stock_crop.probability, rtol=0, atol=PROBABILITY)
