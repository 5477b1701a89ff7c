"""SAM's encoder in 16 bits without autocast, run on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import random_models
import torch
from segment_anything.modeling.image_encoder import window_partition, window_unpartition

from wsss_ray.models.fast import ops
from wsss_ray.models.fast.linear import linear_with_activation
from wsss_ray.models.fast.sam_half import HalfEncoder
from wsss_ray.models.fast.sam_windows import from_windows, to_windows
from wsss_ray.models.sam.loading import load_sam


@pytest.mark.parametrize(("height", "width", "window"), [(10, 10, 7), (14, 14, 7), (5, 9, 7), (8, 17, 4)])
def test_windows(height: int, width: int, window: int) -> None:
    grid = torch.randn(2, height, width, 3)
    expected, padded = window_partition(grid, window)
    windows = to_windows(grid, window, torch.zeros(3))
    assert torch.equal(windows.flatten(0, 2), expected)
    assert torch.equal(from_windows(windows, height, width), grid)
    assert torch.equal(window_unpartition(windows.flatten(0, 2), window, padded, (height, width)), grid)
    beyond = to_windows(torch.zeros_like(grid), window, torch.ones(3))
    assert beyond.sum() == 3 * 2 * (padded[0] * padded[1] - height * width)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@torch.inference_mode()
def test_features_are_the_packages(dtype: torch.dtype, tmp_path: Path) -> None:
    sam = load_sam("tiny", random_models.write_sam(tmp_path, seed=1))
    side = sam.image_encoder.img_size
    images = torch.randn(2, 3, side, side)
    expected = sam.image_encoder(images)
    encoder = HalfEncoder(sam.image_encoder, dtype, ops.attend)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        features = encoder(images)
    error = float((features.float() - expected).norm() / expected.norm())
    assert error < {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}[dtype]
    assert {parameter.dtype for parameter in sam.parameters()} == {torch.float32}, "the original is unchanged"
    trunk = [parameter for block in encoder.encoder.blocks for parameter in block.parameters()]
    assert {parameter.dtype for parameter in trunk} == {dtype}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gelu_before_the_sum_is_rounded_is_at_least_as_exact(dtype: torch.dtype) -> None:
    """The approximation inside the product's kernel errs less than the exact GELU of a rounded sum.

    The CPU's kernel is not the GPU's, so both are computed here by the rule: sums in float32, rounded once or twice.
    """
    sums = torch.linspace(-6, 6, 200_001)
    exact = torch.nn.functional.gelu(sums.double())
    inside = torch.nn.functional.gelu(sums, approximate="tanh").to(dtype)
    outside = torch.nn.functional.gelu(sums.to(dtype).float()).to(dtype)
    errors = [float((found.double() - exact).square().mean().sqrt()) for found in (inside, outside)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_activations_inside_the_product(activation: str) -> None:
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(16, 24), torch.randn(2, 3, 16)
    function = {"relu": torch.relu, "gelu": torch.nn.functional.gelu}[activation]
    found = linear_with_activation(x, linear.weight, linear.bias, activation)  # type: ignore[arg-type]
    torch.testing.assert_close(found, function(linear(x)), rtol=0, atol=1e-3)
