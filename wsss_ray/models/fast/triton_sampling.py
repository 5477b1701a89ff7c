"""Deformable sampling as one Triton kernel: softmax, positions, interpolation and weighted sum in registers."""

# ruff: noqa: N803, PLR0917  constants of a kernel are capitals, shape suffixes as in `sampling`

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

QUERIES = 32
"""Queries of one program."""


def sample(
    values_BSC: Tensor,
    points_BQX: Tensor,
    reference_BQLX: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    heads: int,
) -> Tensor:
    """Return the samples (B, Q, C) of the queries in the dtype of the values; arguments as `ops.sample`."""
    batch, positions, channels = values_BSC.shape
    count, levels = reference_BQLX.shape[1:3]
    points = points_BQX.shape[2] // (3 * heads * levels)
    out = torch.empty(batch, count, channels, dtype=values_BSC.dtype, device=values_BSC.device)
    _sample[(triton.cdiv(count, QUERIES), batch * heads)](
        values_BSC.contiguous(),
        points_BQX.contiguous(),
        reference_BQLX.float().contiguous(),
        spatial_shapes,
        level_start_index,
        out,
        positions,
        count,
        HEADS=heads,
        LEVELS=levels,
        POINTS=points,
        CHANNELS=channels // heads,
        COORDINATES=reference_BQLX.shape[3],
        QUERIES=QUERIES,
    )
    return out


@triton.jit
def _sample(  # type: ignore[no-untyped-def]
    values,
    points,
    reference,
    shapes,
    starts,
    out,
    positions,
    count,
    HEADS: tl.constexpr,
    LEVELS: tl.constexpr,
    POINTS: tl.constexpr,
    CHANNELS: tl.constexpr,
    COORDINATES: tl.constexpr,
    QUERIES: tl.constexpr,
):
    """Compute some queries of one head of one image. All sums are float32."""
    image = tl.program_id(1) // HEADS
    head = tl.program_id(1) % HEADS
    query = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    is_query = query < count
    row = image.to(tl.int64) * count + query
    channel = tl.arange(0, CHANNELS)
    wide = HEADS * CHANNELS
    # a row of `points`: offsets (h, L, P, 2), then scores (h, L P)
    offsets = points + row * (3 * HEADS * LEVELS * POINTS) + head * (2 * LEVELS * POINTS)
    scores = points + row * (3 * HEADS * LEVELS * POINTS) + (2 * HEADS + head) * (LEVELS * POINTS)
    boxes = reference + row * (LEVELS * COORDINATES)
    highest = tl.full((QUERIES,), float("-inf"), tl.float32)
    for index in range(LEVELS * POINTS):
        highest = tl.maximum(highest, tl.load(scores + index, mask=is_query, other=0.0).to(tl.float32))
    total = tl.zeros((QUERIES,), tl.float32)
    mixed = tl.zeros((QUERIES, CHANNELS), tl.float32)
    for level in range(LEVELS):
        height = tl.load(shapes + 2 * level)
        width = tl.load(shapes + 2 * level + 1)
        first = image.to(tl.int64) * positions + tl.load(starts + level)
        box = boxes + level * COORDINATES
        center_x = tl.load(box, mask=is_query, other=0.0) * width - 0.5
        center_y = tl.load(box + 1, mask=is_query, other=0.0) * height - 0.5
        spread_x = tl.full((QUERIES,), 1.0, tl.float32)
        spread_y = tl.full((QUERIES,), 1.0, tl.float32)
        if COORDINATES == 4:
            spread_x = tl.load(box + 2, mask=is_query, other=0.0) * width * (0.5 / POINTS)
            spread_y = tl.load(box + 3, mask=is_query, other=0.0) * height * (0.5 / POINTS)
        for point in range(POINTS):
            index = level * POINTS + point
            share = tl.exp(tl.load(scores + index, mask=is_query, other=0.0).to(tl.float32) - highest)
            total += share
            x = center_x + tl.load(offsets + 2 * index, mask=is_query, other=0.0).to(tl.float32) * spread_x
            y = center_y + tl.load(offsets + 2 * index + 1, mask=is_query, other=0.0).to(tl.float32) * spread_y
            left = tl.floor(x)
            top = tl.floor(y)
            for corner in tl.static_range(4):
                column = left + corner % 2
                line = top + corner // 2
                inside = is_query & (column >= 0) & (column < width) & (line >= 0) & (line < height)
                # a product of the shares of both axes: 1 - distance to the corner
                weight = share * (1 - tl.abs(x - column)) * (1 - tl.abs(y - line))
                position = first + tl.where(inside, line * width + column, 0.0).to(tl.int64)
                pixel = values + position[:, None] * wide + head * CHANNELS + channel[None, :]
                mixed += weight[:, None] * tl.load(pixel, mask=inside[:, None], other=0.0).to(tl.float32)
    target = out + row[:, None] * wide + head * CHANNELS + channel[None, :]
    tl.store(target, (mixed / total[:, None]).to(out.dtype.element_ty), mask=is_query[:, None])
