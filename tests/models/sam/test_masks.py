"""Masks of the original size against `Sam.postprocess_masks`."""

import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam
from torch.nn import functional

from wsss_ray.models.device import Compute
from wsss_ray.models.results import MaskCrop
from wsss_ray.models.sam.encoder import resized_size
from wsss_ray.models.sam.masks import OriginalSize

CPU = Compute(device=torch.device("cpu"), tier="float32")
SIZES = [(480, 640), (375, 500), (500, 333), (1, 1), (2, 3), (200, 8000), (8000, 200), (1024, 1024), (1500, 2000)]


def original_size_of(low: int, network: int, height: int, width: int, *, whole: bool = False) -> OriginalSize:
    resized = resized_size(height, width, network)
    return OriginalSize(
        low_side=low, network_side=network, resized=resized, original=(height, width), compute=CPU, whole=whole
    )


def blobs(low: int) -> torch.Tensor:
    """Logits of small and large objects, at borders and inside, in several parts, and of empty and full masks."""
    torch.manual_seed(0)
    smooth = functional.interpolate(torch.randn(8, 1, 12, 12), low, mode="bicubic")[:, 0]
    logits = smooth + torch.randn(8, low, low) / 50
    logits[2:, : low // 3] -= 9
    logits[3:, :, low // 2 :] -= 9
    logits[4] = -1
    logits[4, low // 3, low // 4] = 0.5  # a single pixel
    logits[5] = 0  # not positive
    logits[6] = -1
    logits[6, -1, -1] = 1  # in the padding, unless the image is square
    logits[7] = 1
    return logits


def reference(low: int, network: int, height: int, width: int, logits: torch.Tensor) -> np.ndarray:
    """Logits by the package's method, which uses only the side of a Sam."""

    class Sides:
        image_encoder = type("ImageEncoder", (), {"img_size": network})

    resized = resized_size(height, width, network)
    return Sam.postprocess_masks(Sides(), logits[:, None], resized, (height, width))[:, 0].numpy()


def crops_of(original_size: OriginalSize, logits: torch.Tensor, *, probabilities: bool) -> list[MaskCrop]:
    count = len(logits)
    return list(original_size.crops_of(logits, boxes=range(count), scores=[0.5] * count, probabilities=probabilities))


def whole(crop: MaskCrop, values: np.ndarray, height: int, width: int) -> np.ndarray:
    result = np.zeros((height, width), values.dtype)
    result[crop.top : crop.top + values.shape[0], crop.left : crop.left + values.shape[1]] = values
    return result


@pytest.mark.parametrize(("low", "network"), [(256, 1024), (64, 128)])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("route", ["tiles", "whole"])
def test_masks_are_the_packages(low: int, network: int, size: tuple[int, int], route: str) -> None:
    logits = blobs(low)
    expected = reference(low, network, *size, logits)
    original_size = original_size_of(low, network, *size, whole=route == "whole")
    crops = crops_of(original_size, logits, probabilities=True)
    assert [crop.box_index for crop in crops] == list(range(len(logits)))
    for ours, theirs in zip(crops, expected, strict=True):
        differs = whole(ours, ours.mask, *size) != (theirs > 0)
        assert np.abs(theirs[differs]).max(initial=0) < 1e-5
        assert differs.mean() < 1e-5
        height, width = ours.mask.shape
        if ours.mask.any():
            assert ours.mask[0].any()
            assert ours.mask[-1].any()
            assert ours.mask[:, 0].any()
            assert ours.mask[:, -1].any()
        else:
            assert (ours.top, ours.left, height, width) == (0, 0, 0, 0)
        window = theirs[ours.top : ours.top + height, ours.left : ours.left + width]
        assert ours.probability is not None
        np.testing.assert_allclose(ours.probability, 1 / (1 + np.exp(-window)), rtol=0, atol=1e-5)
    assert not crops[5].mask.any()
    assert crops[7].mask.shape == size
    assert crops[7].mask.all()


def test_without_probabilities_there_are_none() -> None:
    (crop, *_) = crops_of(original_size_of(64, 128, 30, 40), blobs(64), probabilities=False)
    assert crop.probability is None


def test_masks_do_not_keep_the_whole_array_in_memory() -> None:
    for crop in crops_of(original_size_of(64, 128, 480, 640, whole=True), blobs(64), probabilities=True):
        assert crop.mask.base is None
        assert crop.probability is not None
        assert crop.probability.base is None


def test_a_side_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="sides up to 65536"):
        original_size_of(64, 128, 65_537, 10)
