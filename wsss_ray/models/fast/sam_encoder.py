"""Fast layers of SAM's image encoder: attention that never holds a whole score matrix, and fused linear layers."""

# ruff: noqa: N803, N815  shape suffixes: B images or windows, H W positions, C channels, K keys along one axis

from __future__ import annotations

from collections.abc import Iterator

import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.image_encoder import Attention, get_rel_pos
from torch import Tensor, nn
from torch.nn import functional

from wsss_ray.models.fast.linear import FusedLinear

BIAS_BYTES = {"cpu": 8 * 2**20, "cuda": 2**30}
"""Bytes of the position bias that is computed at once. CPU: few enough for the cache and for the allocator to reuse."""


def use_fast_layers(sam: Sam, device: torch.device) -> None:
    """Replace layers of the image encoder in place. Its weights must be final and on the device."""
    for block in sam.image_encoder.blocks:
        block.attn = PiecewiseAttention(block.attn, BIAS_BYTES[device.type], window=block.window_size)
        block.window_size = 0  # the attention itself divides its input into windows
        block.mlp.lin1, block.mlp.act = FusedLinear(block.mlp.lin1, "gelu"), nn.Identity()
        block.mlp.lin2 = FusedLinear(block.mlp.lin2)


class PiecewiseAttention(nn.Module):
    """segment-anything's `Attention` with decomposed relative positions, by fused attention, piece by piece.

    The relative positions become an additive bias for `scaled_dot_product_attention`. The bias is computed for as many
    images, heads and rows of queries at once as fit into `bias_bytes`. The padding of the last windows is neither
    projected nor used as queries: it is zero before the projection, so its keys and values are the projection's bias.
    Results equal the package's but for rounding.
    """

    rows_HKC: Tensor
    columns_WKC: Tensor

    def __init__(self, attention: Attention, bias_bytes: int, *, window: int = 0) -> None:
        """Share the parameters of `attention`, whose weights must be final.

        Args:
            attention: the layer to replace.
            bias_bytes: bytes of the position bias that is computed at once.
            window: side of the windows within which positions attend to each other; 0: to all positions.
        """
        super().__init__()
        assert attention.use_rel_pos
        self.num_heads: int = attention.num_heads
        self.window = window
        self.qkv = FusedLinear(attention.qkv)
        self.proj = FusedLinear(attention.proj)
        self._bias_bytes = bias_bytes
        for name, table in (("rows_HKC", attention.rel_pos_h), ("columns_WKC", attention.rel_pos_w)):
            side = (len(table) + 1) // 2
            relative = get_rel_pos(side, side, table.detach())
            self.register_buffer(name, relative, persistent=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Return the attention's output: (B, H, W, C) -> (B, H, W, C)."""
        qkv = self.qkv(x_BHWC)
        if not self.window:
            return self.proj(self._attend(qkv))
        batch, height, width, channels = qkv.shape
        down, across = -(-height // self.window), -(-width // self.window)
        padded = qkv.new_empty(batch, down * self.window, across * self.window, channels)
        bias = torch.zeros(channels, device=qkv.device) if self.qkv.bias is None else self.qkv.bias
        padded[:, height:] = padded[:, :height, width:] = bias.to(qkv.dtype)
        padded[:, :height, :width] = qkv
        windows = padded.view(batch, down, self.window, across, self.window, channels).transpose(2, 3)
        mixed = self._attend(windows.flatten(0, 2)).view(batch, down, across, self.window, self.window, -1)
        whole = mixed.transpose(2, 3).reshape(batch, down * self.window, across * self.window, -1)
        return self.proj(whole[:, :height, :width])

    def _attend(self, qkv_BHW3C: Tensor) -> Tensor:
        """Return the attention among the H x W positions of each of B windows or images: (B, H, W, C)."""
        batch, height, width, _ = qkv_BHW3C.shape
        qkv = qkv_BHW3C.view(batch, height * width, 3, self.num_heads, -1)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, H W, C / heads) each
        queries = queries.unflatten(2, (height, width))
        mixed = torch.empty_like(values.transpose(1, 2)).unflatten(1, (height, width))
        row_bytes = width * height * width * queries.element_size()
        for images, heads, rows in _pieces(batch, self.num_heads, height, self._bias_bytes // row_bytes):
            piece = queries[images, heads, rows]
            by_row = torch.einsum("bnhwc,hkc->bnhwk", piece, self.rows_HKC[rows])
            by_column = torch.einsum("bnhwc,wkc->bnhwk", piece, self.columns_WKC)
            bias = by_row[..., :, None] + by_column[..., None, :]
            attended = functional.scaled_dot_product_attention(
                piece.flatten(2, 3), keys[images, heads], values[images, heads],
                attn_mask=bias.flatten(4).flatten(2, 3),
            )  # fmt: skip
            mixed[images, rows, :, heads] = attended.unflatten(2, (-1, width)).permute(0, 2, 3, 1, 4)
        return mixed.flatten(3)


def _pieces(batch: int, heads: int, rows: int, rows_at_once: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yield slices of images, heads and rows of at most `rows_at_once` rows of a head, but at least one row."""
    row_step = min(rows, max(1, rows_at_once))
    head_step = min(heads, max(1, rows_at_once // rows))
    batch_step = min(batch, max(1, rows_at_once // (rows * heads)))
    for image in range(0, batch, batch_step):
        for head in range(0, heads, head_step):
            for row in range(0, rows, row_step):
                yield (
                    slice(image, image + batch_step),
                    slice(head, head + head_step),
                    slice(row, row + row_step),
                )
