"""Attention within the windows of Swin on a GPU: one product for queries, keys and values, masks made once per size."""

# ruff: noqa: N803, N806, N815, PLR0917  shape suffixes: B windows of all images, L positions of a window, C channels, W windows of an image

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.swin.modeling_swin import SwinAttention, SwinLayer

from wsss_ray.models.fast.half import ALIGNED
from wsss_ray.models.fast.linear import join_linears

MASKS_KEPT = 128
"""Masks of shifted windows that stay on the device: of some 32 sizes of images, at most 0.25 GB."""


def use_device_windows(backbone: nn.Module) -> None:
    """Replace the attention of every Swin layer in place."""
    mask = functools.lru_cache(MASKS_KEPT)(_mask)
    for module in backbone.modules():
        if isinstance(module, SwinLayer):
            module.attention = WindowAttention(module.attention)
            module.get_attn_mask = functools.partial(_mask_of, module, mask)


class WindowAttention(nn.Module):
    """The function of transformers' `SwinAttention`."""

    bias_1nLL: Tensor

    def __init__(self, attention: SwinAttention) -> None:
        """Share the output projection of `attention`; its other parameters are joined."""
        super().__init__()
        self.heads: int = attention.num_attention_heads
        self.scaling: float = attention.scaling
        self.qkv = join_linears([attention.q_proj, attention.k_proj, attention.v_proj])
        self.o_proj: nn.Module = attention.o_proj
        bias = attention.relative_position_bias().detach()
        self.register_buffer("bias_1nLL", functional.pad(bias, (0, -bias.shape[-1] % ALIGNED)), persistent=False)

    def forward(self, hidden_BLC: Tensor, mask_WLL: Tensor | None = None, **_: Any) -> tuple[Tensor, None]:
        """Return the attention's output, and None in place of attention weights.

        Args:
            hidden_BLC: the windows of all images.
            mask_WLL: what is added to the scores of each window of an image.
        """
        count, positions, _channels = hidden_BLC.shape
        qkv = self.qkv(hidden_BLC).view(count, positions, 3, self.heads, -1)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.bias_1nLL[..., :positions].to(queries.dtype)
        if mask_WLL is not None:
            windows = len(mask_WLL)
            whole = queries.new_empty(count // windows, windows, *self.bias_1nLL.shape[1:])[..., :positions]
            every_image = bias.expand(len(whole), -1, -1, -1)[:, None]
            bias = torch.add(every_image, mask_WLL[:, None].to(queries.dtype), out=whole).flatten(0, 1)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, scale=self.scaling)
        return self.o_proj(mixed.transpose(1, 2).flatten(2)), None


def _mask_of(
    layer: SwinLayer,
    mask: Callable[..., Tensor],
    height: int,
    width: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor | None:
    """Return the mask of a layer's shifted windows for a map of this size."""
    if layer.shift_size <= 0:
        return None
    return mask(height, width, int(layer.window_size), int(layer.shift_size), dtype, device)


def _mask(height: int, width: int, window: int, shift: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return -100 between positions of a window (W, L, L) that were not neighbors before the shift."""
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    row_region = (rows >= height - window).int() + (rows >= height - shift)
    column_region = (columns >= width - window).int() + (columns >= width - shift)
    region = row_region[:, None] * 3 + column_region
    region_WL = region.view(height // window, window, width // window, window).transpose(1, 2).reshape(-1, window**2)
    return (region_WL[:, None] != region_WL[:, :, None]).to(dtype) * -100
