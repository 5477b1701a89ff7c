"""SAM's image encoder in 16 bits on a GPU: no weight is cast in a forward pass, and no operand copied without need."""

# ruff: noqa: N803, N806, N815  shape suffixes: B images or windows, H W positions, L = H W, C channels, n heads of d channels

from __future__ import annotations

import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import Attention
from torch import Tensor, nn

from wsss_ray.models.fast import ops, sam_windows, self_check
from wsss_ray.models.fast.half import half_copy
from wsss_ray.models.fast.linear import FusedLinear


class HalfEncoder(nn.Module):
    """`ImageEncoderViT` with weights and activations in 16 bits; its last convolutions run as under autocast."""

    def __init__(self, encoder: ImageEncoderViT, dtype: torch.dtype, attend: ops.Attend | None = None) -> None:
        """Copy the weights of `encoder`, which must be final and on the device.

        Args:
            encoder: the package's encoder.
            dtype: float16 or bfloat16.
            attend: what computes the attention, `ops.attend` or `sam_windows.attend`. Unset: what `self_check` chooses.
        """
        super().__init__()
        norms = [part for part in encoder.neck if not isinstance(part, nn.Conv2d)]
        self.encoder: ImageEncoderViT = half_copy(encoder, dtype, keep=norms)
        self._dtype = dtype
        for block in self.encoder.blocks:
            block.attn = HalfAttention(block.attn, attend or sam_windows.attend, window=block.window_size)
            block.window_size = 0  # the attention itself divides its input into windows
            block.mlp.lin1, block.mlp.act = FusedLinear(block.mlp.lin1, "gelu"), nn.Identity()

        if attend is None:
            self._choose()

    def _choose(self) -> None:
        """Compare the kernel with stock operators on one image, for each size of window."""
        layers: list[HalfAttention] = [block.attn for block in self.encoder.blocks]
        side = self.encoder.img_size // self.encoder.patch_embed.proj.kernel_size[0]
        cases = []
        for layer in {layer.window: layer for layer in layers}.values():
            shape = (1, side, side, layer.qkv.out_features)
            qkv = torch.randn(shape, dtype=self._dtype, device=layer.table_dT.device)
            cases.append((qkv, layer.qkv.bias, layer.table_dT, layer.num_heads, layer.window))
        chosen = self_check.choose("attention of SAM", ops.attend, sam_windows.attend, cases)
        for layer in layers:
            layer.attend = chosen

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """Return the features (B, C, g, g) of normalized images."""
        with torch.autocast(images_B3HW.device.type, enabled=False):
            x_BHWC = self.encoder.patch_embed(images_B3HW.to(self._dtype))
            if self.encoder.pos_embed is not None:
                x_BHWC = x_BHWC + self.encoder.pos_embed
            for block in self.encoder.blocks:
                x_BHWC = block(x_BHWC)
        features: Tensor = self.encoder.neck(x_BHWC.permute(0, 3, 1, 2))
        return features


class HalfAttention(nn.Module):
    """segment-anything's `Attention` with decomposed relative positions, in as few passes over memory as possible."""

    table_dT: Tensor
    """Relative rows, then columns, from the farthest below and right; the order in which keys follow each other."""

    def __init__(self, attention: Attention, attend: ops.Attend, *, window: int = 0) -> None:
        """Share the parameters of `attention`, whose weights must be final.

        Args:
            attention: the layer to replace, in 16 bits.
            attend: what computes the attention, `sam_windows.attend` or `ops.attend`.
            window: side of the windows within which positions attend to each other; 0: to all positions.
        """
        super().__init__()
        assert attention.use_rel_pos
        assert attention.qkv.bias is not None
        self.attend = attend
        self.num_heads: int = attention.num_heads
        self.window = window
        self.qkv: nn.Linear = attention.qkv
        self.proj: nn.Linear = attention.proj
        tables = [table.detach().flip(0) for table in (attention.rel_pos_h, attention.rel_pos_w)]
        assert len(tables[0]) == len(tables[1])
        self.register_buffer("table_dT", torch.cat(tables).t().contiguous(), persistent=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Return the attention's output: (B, H, W, C) -> (B, H, W, C)."""
        mixed = self.attend(self.qkv(x_BHWC), self.qkv.bias, self.table_dT, self.num_heads, self.window)
        return self.proj(mixed)
