"""The Triton kernels in Triton's interpreter, against stock operators and the packages' own layers.

Its products of bfloat16 are wrong, so that dtype is left to the check at an actor's start. `tests/conftest.py` chooses
the interpreter.
"""

from __future__ import annotations

import pytest
import torch
from segment_anything.modeling.image_encoder import Attention, window_partition, window_unpartition
from torch import Tensor

from wsss_ray.models.fast import ops, sam_windows

pytest.importorskip("triton")
from wsss_ray.models.fast import triton_attention, triton_sampling

SHAPES = ((6, 7), (3, 4), (2, 2), (1, 1))
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3}


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("coordinates", [2, 4])
def test_sampling(coordinates: int, dtype: torch.dtype) -> None:
    """Offsets of several pixels reach beyond every border; the last program has queries to spare."""
    torch.manual_seed(0)
    shapes = torch.tensor(SHAPES)
    starts = torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]])
    values = torch.randn(2, int(shapes.prod(1).sum()), 64).to(dtype)
    points = (2 * torch.randn(2, 40, 4 * 3 * 4 * 4)).to(dtype)
    reference = torch.rand(2, 40, 4, coordinates)
    expected = ops.stock_sample(values, points, reference, shapes, starts, 4)
    found = triton_sampling.sample(values, points, reference, shapes, starts, 4)
    assert found.dtype == dtype
    assert expected.float().std() > 0.1
    assert (found - expected).abs().max() < TOLERANCE[dtype] * expected.abs().max()


def attention(side: int, window: int, heads: int, channels: int) -> tuple[Attention, Tensor]:
    torch.manual_seed(0)
    layer = Attention(heads * channels, heads, use_rel_pos=True, input_size=((window or side),) * 2)
    for parameter in layer.parameters():
        parameter.detach().normal_(0, 0.2)
    return layer.requires_grad_(False), torch.randn(2, side, side, heads * channels)


def of_package(layer: Attention, x: Tensor, window: int) -> Tensor:
    if not window:
        return layer(x)
    windows, padded = window_partition(x, window)
    return window_unpartition(layer(windows), window, padded, (x.shape[1], x.shape[2]))


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("kernel", [triton_attention.attend, sam_windows.attend], ids=["triton", "stock"])
@pytest.mark.parametrize(
    ("side", "window", "heads", "channels"), [(10, 7, 2, 80), (14, 7, 1, 32), (16, 0, 2, 16), (8, 0, 1, 48)]
)
def test_attention(side: int, window: int, heads: int, channels: int, kernel: ops.Attend, dtype: torch.dtype) -> None:
    """Windows that the grid cuts and such that fit, whole grids, heads of one and of two powers of two."""
    layer, x = attention(side, window, heads, channels)
    expected = of_package(layer, x, window)
    assert expected.std() > 0.3
    table = torch.cat([layer.rel_pos_h.flip(0), layer.rel_pos_w.flip(0)]).t().contiguous()
    half = layer.to(dtype)
    mixed = kernel(half.qkv(x.to(dtype)), half.qkv.bias, table.to(dtype), heads, window)
    assert (half.proj(mixed) - expected).abs().max() < 3 * TOLERANCE[dtype] * expected.abs().max()


def test_heads_that_the_kernel_takes() -> None:
    assert [size for size in range(8, 140) if triton_attention.takes(size, 1)] == [
        16, 32, 48, 64, 80, 96, 128,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="heads of 24 channels"):
        triton_attention.attend(torch.zeros(1, 4, 4, 72), torch.zeros(72), torch.zeros(24, 14), 1, 0)
