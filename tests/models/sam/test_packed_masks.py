"""Masks that the host reads at once against those that it reads image by image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from wsss_ray.models.device import Compute
from wsss_ray.models.sam import masks
from wsss_ray.models.sam.encoder import resized_size
from wsss_ray.models.sam.masks import OriginalSize
from wsss_ray.models.sam.packed_masks import PackedMasks

CPU = Compute(device=torch.device("cpu"), tier="float32")
SIZES = [(48, 64), (37, 53), (5, 9), (1, 1), (64, 7)]


def size_of(height: int, width: int) -> OriginalSize:
    return OriginalSize(
        low_side=32,
        network_side=128,
        resized=resized_size(height, width, 128),
        original=(height, width),
        compute=CPU,
        whole=True,
    )


def logits(count: int, seed: int) -> Tensor:
    """Return random masks, the second one empty."""
    torch.manual_seed(seed)
    made = torch.nn.functional.interpolate(torch.randn(count, 1, 6, 6), 32, mode="bicubic")[:, 0]
    made[1:2] = -1
    return made


@pytest.mark.parametrize("at_once", [1, 2**24])
def test_masks_are_those_of_each_image(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Widths that fill bytes and that do not, and images that are resized in several parts."""
    monkeypatch.setattr(masks, "DEVICE_PIXELS", at_once)
    packed = PackedMasks()
    expected = []
    for image, size in enumerate(SIZES):
        count = 1 + image
        low, scores = logits(count, image), torch.rand(count, 2)[:, 0]
        boxes = list(range(10, 10 + count))
        packed.add(size_of(*size), low, scores, image=image, boxes=boxes)
        crops = size_of(*size).crops_of(low, boxes=boxes, scores=scores.tolist(), probabilities=False)
        expected += [(image, crop) for crop in crops]
    packed.send()
    found = list(packed.read())
    assert len(found) == len(expected) == sum(range(1, 6))
    assert sum(crop.mask.size > 20 for _, crop in expected) >= 5
    for (image, crop), (of_image, other) in zip(found, expected, strict=True):
        assert image == of_image
        assert (crop.box_index, crop.top, crop.left, crop.score) == (
            other.box_index, other.top, other.left, other.score,
        )  # fmt: skip
        np.testing.assert_array_equal(crop.mask, other.mask)
        assert crop.mask.dtype == np.bool_
        assert crop.mask.base is None, "a view keeps the masks of the whole group in memory"
