"""SAM's attention with relative positions as one Triton kernel, which divides a grid into windows by its addresses.

It reads queries, keys and values where the projection wrote them, adds the position bias to the scores while they are
in registers, and writes to the grid. So no window is copied and no bias is stored.
"""

# ruff: noqa: N803, N806, PLR0915, PLR0917  constants of a kernel are capitals, shape suffixes as in `sam_half`

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, KEYS = 64, 64
"""Queries of one program, and keys of one step."""


def attend(qkv_BHWX: Tensor, bias_X: Tensor, table_dT: Tensor, heads: int, window: int) -> Tensor:
    """Return the attention (B, H, W, C); arguments as `ops.attend`."""
    batch, height, width, channels = qkv_BHWX.shape
    channels //= 3
    qkv_BHWX = qkv_BHWX.contiguous()  # the kernel computes addresses itself; a compiled encoder chooses strides
    if not takes(channels, heads):
        raise ValueError(f"heads of {channels // heads} channels are not a power of two or a sum of two, from 16 on")
    side = window or height
    down, across = -(-height // side), -(-width // side)
    padded = triton.next_power_of_2(side)
    size = channels // heads
    first = 1 << (size.bit_length() - 1)
    queries_nLd = qkv_BHWX.view(batch * height * width, 3, heads, size)[:, 0].transpose(0, 1)
    near_nLT = torch.bmm(queries_nLd, table_dT.expand(heads, -1, -1))
    out = torch.empty(batch, height, width, channels, dtype=qkv_BHWX.dtype, device=qkv_BHWX.device)
    _attend[(triton.cdiv(side * padded, ROWS), batch * down * across * heads)](
        qkv_BHWX,
        bias_X,
        near_nLT,
        out,
        height,
        width,
        batch * height * width,
        down,
        across,
        size**-0.5,
        HEADS=heads,
        SIDE=side,
        PADDED=padded,
        FIRST=first,
        REST=size - first,
        CUT=height % side != 0 or width % side != 0,
        ROWS=ROWS,
        KEYS=max(KEYS, padded),
        num_warps=4,
    )
    return out


def takes(channels: int, heads: int) -> bool:
    """Return whether the kernel knows heads of this size: a power of two from 16, or the sum of two of them."""
    size = channels // heads
    first = 1 << (size.bit_length() - 1)
    rest = size - first
    return size >= 16 and (rest == 0 or (rest >= 16 and rest & (rest - 1) == 0))


@triton.jit
def _attend(  # type: ignore[no-untyped-def]
    qkv,
    bias,
    near,
    out,
    height,
    width,
    tokens,
    down,
    across,
    scale,
    HEADS: tl.constexpr,
    SIDE: tl.constexpr,
    PADDED: tl.constexpr,
    FIRST: tl.constexpr,
    REST: tl.constexpr,
    CUT: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Compute some queries of one head of one window. Heads have FIRST + REST channels; sums are float32.

    Positions of a window are numbered by rows of PADDED columns, so that every step has the same columns.
    """
    size: tl.constexpr = FIRST + REST
    wide: tl.constexpr = HEADS * (FIRST + REST)
    targets: tl.constexpr = 4 * SIDE - 2
    head = tl.program_id(1) % HEADS
    window = tl.program_id(1) // HEADS
    image = (window // (down * across)).to(tl.int64)
    top = (window // across % down) * SIDE
    left = (window % across) * SIDE
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row = place // PADDED
    column = place % PADDED
    is_query = (row < SIDE) & (column < SIDE) & (top + row < height) & (left + column < width)
    token = (image * height + top + row) * width + left + column
    channel = tl.arange(0, FIRST)
    query = tl.load(
        qkv + token[:, None] * (3 * wide) + head * size + channel[None, :], mask=is_query[:, None], other=0.0
    )
    mixed = tl.zeros((ROWS, FIRST), tl.float32)
    if REST:
        rest = FIRST + tl.arange(0, REST)
        query_rest = tl.load(
            qkv + token[:, None] * (3 * wide) + head * size + rest[None, :], mask=is_query[:, None], other=0.0
        )
        mixed_rest = tl.zeros((ROWS, REST), tl.float32)
    # scores with relative rows begin at SIDE - 1 - row, those with relative columns at 2 SIDE - 1 + SIDE - 1 - column
    scores = near + (head * tokens.to(tl.int64) + token) * targets
    key_column = tl.arange(0, KEYS) % PADDED
    by_column = tl.load(
        scores[:, None] + (3 * SIDE - 2 - column)[:, None] + key_column[None, :],
        mask=is_query[:, None] & (key_column < SIDE)[None, :],
        other=0.0,
    ).to(tl.float32)
    highest = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    for start in range(0, SIDE * PADDED, KEYS):
        key_row = (start + tl.arange(0, KEYS)) // PADDED
        is_key = (key_row < SIDE) & (key_column < SIDE)
        is_pixel = is_key
        if CUT:
            is_pixel = is_key & (top + key_row < height) & (left + key_column < width)
        source = qkv + ((image * height + top + key_row) * width + left + key_column) * (3 * wide) + head * size
        keys = tl.load(source[None, :] + wide + channel[:, None], mask=is_pixel[None, :], other=0.0)
        values = tl.load(source[:, None] + 2 * wide + channel[None, :], mask=is_pixel[:, None], other=0.0)
        if CUT:  # positions beyond the grid are zero before the projection, so they have its bias
            keys += tl.load(
                bias + wide + head * size + channel[:, None] + 0 * key_column[None, :],
                mask=(is_key & ~is_pixel)[None, :], other=0.0,
            )  # fmt: skip
            values += tl.load(
                bias + 2 * wide + head * size + channel[None, :] + 0 * key_column[:, None],
                mask=(is_key & ~is_pixel)[:, None], other=0.0,
            )  # fmt: skip
        score = tl.dot(query, keys, input_precision="ieee")
        if REST:
            keys_rest = tl.load(source[None, :] + wide + rest[:, None], mask=is_pixel[None, :], other=0.0)
            values_rest = tl.load(source[:, None] + 2 * wide + rest[None, :], mask=is_pixel[:, None], other=0.0)
            if CUT:
                keys_rest += tl.load(
                    bias + wide + head * size + rest[:, None] + 0 * key_column[None, :],
                    mask=(is_key & ~is_pixel)[None, :], other=0.0,
                )  # fmt: skip
                values_rest += tl.load(
                    bias + 2 * wide + head * size + rest[None, :] + 0 * key_column[:, None],
                    mask=(is_key & ~is_pixel)[:, None], other=0.0,
                )  # fmt: skip
            score = tl.dot(query_rest, keys_rest, score, input_precision="ieee")
        by_row = tl.load(
            scores[:, None] + (SIDE - 1 - row)[:, None] + key_row[None, :],
            mask=is_query[:, None] & (key_row < SIDE)[None, :],
            other=0.0,
        ).to(tl.float32)
        score = tl.where(is_key[None, :], score * scale + by_row + by_column, float("-inf"))
        new_highest = tl.maximum(highest, tl.max(score, 1))
        shares = tl.exp(score - new_highest[:, None])
        kept = tl.exp(highest - new_highest)
        total = total * kept + tl.sum(shares, 1)
        shares = shares.to(qkv.dtype.element_ty)
        mixed = tl.dot(shares, values, mixed * kept[:, None], input_precision="ieee")
        if REST:
            mixed_rest = tl.dot(shares, values_rest, mixed_rest * kept[:, None], input_precision="ieee")
        highest = new_highest
    target = out + token[:, None] * wide + head * size
    tl.store(target + channel[None, :], (mixed / total[:, None]).to(out.dtype.element_ty), mask=is_query[:, None])
    if REST:
        tl.store(target + rest[None, :], (mixed_rest / total[:, None]).to(out.dtype.element_ty), mask=is_query[:, None])
