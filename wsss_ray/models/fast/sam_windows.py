"""SAM's attention with relative positions on a GPU by stock operators: windows copied once, the bias stored once."""

# ruff: noqa: N803, N806  shape suffixes: B images or windows, H W positions, L = H W, C channels, n heads of d channels

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from wsss_ray.models.fast.half import ALIGNED

BIAS_BYTES = 2**30
"""Bytes of the position bias that is computed at once."""


def attend(qkv_BHWX: Tensor, bias_X: Tensor, table_dT: Tensor, heads: int, window: int) -> Tensor:
    """Return the attention (B, H, W, C); arguments as `ops.attend`."""
    if not window:
        return _attend(qkv_BHWX, table_dT, heads)
    windows = to_windows(qkv_BHWX, window, bias_X)
    mixed = _attend(windows.flatten(0, 2), table_dT, heads)
    return from_windows(mixed.view(*windows.shape[:5], -1), qkv_BHWX.shape[1], qkv_BHWX.shape[2])


def _attend(qkv_BHWX: Tensor, table_dT: Tensor, heads: int) -> Tensor:
    """Return the attention among the H x W positions of each of B windows or images: (B, H, W, C)."""
    batch, side, width, channels = qkv_BHWX.shape
    assert side == width == (table_dT.shape[1] + 2) // 4, (side, width, table_dT.shape)
    qkv = qkv_BHWX.view(batch, side * side, 3, heads, -1)
    step = max(1, BIAS_BYTES // (side**4 * heads * qkv.element_size()))
    mixed = [_attend_piece(qkv[start : start + step], table_dT, side) for start in range(0, batch, step)]
    whole = mixed[0] if len(mixed) == 1 else torch.cat(mixed)
    return whole.view(batch, side, side, channels // 3)


def _attend_piece(qkv_BL3nd: Tensor, table_dT: Tensor, side: int) -> Tensor:
    """Return the attention within each of B windows or images: (B, L, n d).

    The position bias of a query at row r begins at element (side - 1 - r) of its scores with the relative rows, so it
    is read from there without being gathered first.
    """
    batch, count, _, heads, _ = qkv_BL3nd.shape
    targets = table_dT.shape[1]
    queries_nLd = qkv_BL3nd[:, :, 0].flatten(0, 1).transpose(0, 1)  # L of all B
    near = torch.bmm(queries_nLd, table_dT.expand(heads, -1, -1))
    shape, strides = (batch, heads, side, side, side), (count * targets, batch * count * targets)
    by_row = near.as_strided(shape, (*strides, side * targets - 1, targets, 1), side - 1)
    by_column = near.as_strided(shape, (*strides, side * targets, targets - 1, 1), 3 * side - 2)
    padded = -(-count // ALIGNED) * ALIGNED
    bias = near.new_empty(batch, heads, count, padded)[..., :count]
    torch.add(by_row[..., :, None], by_column[..., None, :], out=bias.view(*shape, side))
    queries, keys, values = qkv_BL3nd.permute(2, 0, 3, 1, 4).unbind(0)
    attended = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
    return attended.transpose(1, 2).flatten(2)


def to_windows(x_BHWC: Tensor, window: int, padding: Tensor | None) -> Tensor:
    """Return the windows (B, rows, columns, window, window, C) of a grid, in one pass.

    Args:
        x_BHWC: the grid.
        window: side of a window.
        padding: (C,) value of the positions beyond the grid, zero by default.
    """
    batch, height, width, channels = x_BHWC.shape
    down, across = -(-height // window), -(-width // window)
    windows = x_BHWC.new_empty(batch, down, across, window, window, channels)
    for rows, row, high in _strips(height, window):
        for columns, column, wide in _strips(width, window):
            area = windows[:, rows, columns]
            pixels = x_BHWC[:, row : row + area.shape[1] * high, column : column + area.shape[2] * wide]
            parts = pixels.view(batch, area.shape[1], high, area.shape[2], wide, channels) if pixels.numel() else pixels
            area[:, :, :, :high, :wide] = parts.transpose(2, 3)
            for beyond in (area[:, :, :, high:], area[:, :, :, :high, wide:]):
                if beyond.numel():
                    beyond.copy_(torch.zeros_like(x_BHWC[0, 0, 0]) if padding is None else padding)
    return windows


def from_windows(windows: Tensor, height: int, width: int) -> Tensor:
    """Return the grid (B, height, width, C) of windows (B, rows, columns, window, window, C), in one pass."""
    batch, window, channels = windows.shape[0], windows.shape[3], windows.shape[5]
    grid = windows.new_empty(batch, height, width, channels)
    for rows, row, high in _strips(height, window):
        for columns, column, wide in _strips(width, window):
            area = windows[:, rows, columns, :high, :wide]
            target = grid[:, row : row + area.shape[1] * high, column : column + area.shape[2] * wide]
            target.view(batch, area.shape[1], high, area.shape[2], wide, channels).copy_(area.transpose(2, 3))
    return grid


def _strips(length: int, window: int) -> Iterator[tuple[slice, int, int]]:
    """Yield, for the whole windows along an axis and for the cut one: windows, first position, positions in each."""
    whole, rest = divmod(length, window)
    if whole:
        yield slice(0, whole), 0, window
    if rest:
        yield slice(whole, whole + 1), whole * window, rest
