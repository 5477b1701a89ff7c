"""SAM's image encoder: pictures to features, with attention that never holds a whole score matrix."""

# ruff: noqa: N803, N815  shape suffixes: B images or windows, H W positions, C channels, K keys along one axis

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from segment_anything.modeling import Sam
from segment_anything.modeling.image_encoder import Attention, get_rel_pos
from torch import Tensor, nn
from torch.nn import functional

from wsss_ray.models.device import Compute, to_device
from wsss_ray.models.fast.linear import FusedLinear

logger = logging.getLogger(__name__)

BIAS_BYTES = {"cpu": 8 * 2**20, "cuda": 2**30}
"""Size of the position bias made at once. CPU: small enough for the cache, and for the allocator to keep and reuse."""


def resized_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of an image whose longer side becomes `side`, by segment-anything's rule.

    The shorter side has at least one pixel: where the package's rule gives none, it cannot segment the image.
    """
    scale = side * 1.0 / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def resize_longest_side(
    image: NDArray[np.uint8], side: int, backend: Literal["torchvision", "pil"] = "pil"
) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB to the network's size: with `pil` bit by bit as `ResizeLongestSide.apply_image` does."""
    height, width = resized_size(image.shape[0], image.shape[1], side)
    if backend == "torchvision":
        pixels = torch.from_numpy(image if image.flags.writeable else image.copy())
        channels_last = pixels[None].permute(0, 3, 1, 2)  # in strides that torch takes for it: else it copies twice
        resized = functional.interpolate(channels_last, (height, width), mode="bilinear", antialias=True)
        return resized[0].permute(1, 2, 0).numpy()
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


class ImageEncoder:
    """The image encoder of a SAM on its device, in its precision."""

    def __init__(self, sam: Sam, compute: Compute, *, compile_mode: str = "off") -> None:
        """Take over `sam.image_encoder` (weights final, on the device) and replace its attention in place.

        `compile_mode`: a mode of torch.compile, or off. Compiled, batches are filled up to powers of two with empty
        images, so that few shapes are compiled.
        """
        self._compute = compute
        self._sam = sam
        self.side: int = sam.image_encoder.img_size
        """Side of the network's square input, in pixels."""
        self.float32_fallbacks = 0
        """Batches that overflowed in float16 and were encoded again in float32."""
        for block in sam.image_encoder.blocks:
            block.attn = PiecewiseAttention(block.attn, BIAS_BYTES[compute.device.type], window=block.window_size)
            block.window_size = 0  # the attention itself parts its input
            block.mlp.lin1, block.mlp.act = FusedLinear(block.mlp.lin1, "gelu"), nn.Identity()
            block.mlp.lin2 = FusedLinear(block.mlp.lin2)
        self._compiles = compile_mode != "off"
        self._network = sam.image_encoder
        if self._compiles:
            self._network = torch.compile(sam.image_encoder, mode=compile_mode, dynamic=False)

    def encode(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Pictures from `resize_longest_side` -> (B, C, g, g) float32 features.

        The CPU takes them one by one: a batch gains nothing there, and so the features of a picture do not depend on
        its company by a single bit.
        """
        if self._compute.device.type == "cpu":
            return torch.cat([self._encode_finite([picture]) for picture in pictures])
        return self._encode_finite(pictures)

    def _encode_finite(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        features = self._encode(pictures, self._compute)
        if self._compute.tier == "float16" and not bool(features.isfinite().all()):
            logger.warning("float16 overflowed in SAM's image encoder: %d images run in float32", len(pictures))
            self.float32_fallbacks += 1
            features = self._encode(pictures, Compute(device=self._compute.device, tier="float32"))
        return features

    def _encode(self, pictures: Sequence[NDArray[np.uint8]], compute: Compute) -> Tensor:
        device = compute.device
        with compute.running():
            count = 1 << (len(pictures) - 1).bit_length() if self._compiles else len(pictures)
            inputs = torch.zeros(count, 3, self.side, self.side, device=device)
            for slot, picture in enumerate(pictures):
                pixels = to_device(picture, device).permute(2, 0, 1)
                height, width = pixels.shape[1:]
                inputs[slot, :, :height, :width] = (pixels - self._sam.pixel_mean) / self._sam.pixel_std
            features: Tensor = self._network(inputs)
            return features[: len(pictures)].float()


class PiecewiseAttention(nn.Module):
    """segment-anything's `Attention` with decomposed relative positions, by fused attention and piece by piece.

    The relative positions become an additive bias for `scaled_dot_product_attention`, made for as many images, heads
    and rows of queries at once as `bias_bytes` holds. With windows, what pads the last ones is neither projected nor
    asked: it is zero before the projection, so that its keys and values are the projection's bias. Equal to the
    package's but for rounding.
    """

    rows_HKC: Tensor
    columns_WKC: Tensor

    def __init__(self, attention: Attention, bias_bytes: int, *, window: int = 0) -> None:
        """Share the parameters of `attention`, whose weights must be final; `window` 0: positions see all others."""
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
        """(B, H, W, C) -> (B, H, W, C)."""
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
        """Attention among the H x W positions of each of B windows or images: (B, H, W, C)."""
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
    """Slices of images, heads and rows that hold at most `rows_at_once` rows of one head (or a single one)."""
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
