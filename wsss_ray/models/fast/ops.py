"""The kernels of this package as operators of torch: Triton on a GPU, stock operators elsewhere.

A GPU actor uses them only after `self_check` has compared them with the stock operators on its card.
"""

# ruff: noqa: N803, PLR0917  operators have positional arguments; shape suffixes as in `sampling` and `sam_half`

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wsss_ray.models.fast import sam_windows, sampling

Attend = Callable[[Tensor, Tensor, Tensor, int, int], Tensor]
Sample = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int], Tensor]


@torch.library.custom_op("wsss_ray::sample", mutates_args=())
def sample(
    values_BSC: Tensor,
    points_BQX: Tensor,
    reference_BQLX: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    heads: int,
) -> Tensor:
    """Return the samples (B, Q, C) of deformable attention in the dtype of the values.

    Args:
        values_BSC: values of all positions of all feature maps.
        points_BQX: for each query the offsets (h, L, P, 2), then the scores (h, L P) before the softmax, flattened.
        reference_BQLX: (B, Q, L, 2 or 4) points or boxes (cx, cy, w, h) to sample around, relative to the maps.
        spatial_shapes: (L, 2) heights and widths of the feature maps.
        level_start_index: (L,) index of each map's first position.
        heads: number of heads.
    """
    arguments = (values_BSC, points_BQX, reference_BQLX, spatial_shapes, level_start_index, heads)
    if values_BSC.device.type != "cuda":
        return stock_sample(*arguments)
    from wsss_ray.models.fast import triton_sampling  # noqa: PLC0415 - Triton is not on every machine

    return triton_sampling.sample(*arguments)


@sample.register_fake
def _(
    values_BSC: Tensor,
    points_BQX: Tensor,
    reference_BQLX: Tensor,  # noqa: ARG001 - the operator's signature
    spatial_shapes: Tensor,  # noqa: ARG001
    level_start_index: Tensor,  # noqa: ARG001
    heads: int,  # noqa: ARG001
) -> Tensor:
    return values_BSC.new_empty(*points_BQX.shape[:2], values_BSC.shape[2])


def stock_sample(
    values_BSC: Tensor,
    points_BQX: Tensor,
    reference_BQLX: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    heads: int,
) -> Tensor:
    """Return the same by stock operators."""
    offsets, scores = points_BQX.split((2 * points_BQX.shape[2] // 3, points_BQX.shape[2] // 3), 2)
    found = sampling.sample(values_BSC, offsets, scores, reference_BQLX, spatial_shapes, level_start_index, heads)
    return found.to(values_BSC.dtype)


@torch.library.custom_op("wsss_ray::attend", mutates_args=())
def attend(qkv_BHWX: Tensor, bias_X: Tensor, table_dT: Tensor, heads: int, window: int) -> Tensor:
    """Return the attention (B, H, W, C) with relative positions among the positions of a grid or of its windows.

    Args:
        qkv_BHWX: queries, keys and values of the grid: X = 3 C.
        bias_X: those of a position beyond the grid.
        table_dT: relative rows, then columns, from the farthest below and right.
        heads: number of heads.
        window: side of the windows; 0: all positions of the grid, which is square, attend to each other.
    """
    if qkv_BHWX.device.type != "cuda":
        return sam_windows.attend(qkv_BHWX, bias_X, table_dT, heads, window)
    from wsss_ray.models.fast import triton_attention  # noqa: PLC0415 - Triton is not on every machine

    return triton_attention.attend(qkv_BHWX, bias_X, table_dT, heads, window)


@attend.register_fake
def _(qkv_BHWX: Tensor, bias_X: Tensor, table_dT: Tensor, heads: int, window: int) -> Tensor:  # noqa: ARG001
    return qkv_BHWX.new_empty(*qkv_BHWX.shape[:3], qkv_BHWX.shape[3] // 3)
