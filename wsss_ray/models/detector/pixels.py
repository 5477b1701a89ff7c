"""Images as input of the detector's network: size rule, resizing and normalization."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.v2 import functional as transforms
from transformers.image_transforms import get_size_with_aspect_ratio

from wsss_ray.models.device import to_device

ROUNDED_TO = 32
"""With `resize: rounded`, the sides of the network's input are multiples of this."""


@dataclass(frozen=True, kw_only=True)
class PixelTransform:
    """Resizing and normalization for one checkpoint."""

    shortest_edge: int
    """Length of the shorter side of the network's input in pixels, unless the cap applies."""
    longest_edge: int
    """Cap on the longer side."""
    mean: tuple[float, float, float]
    """Mean of RGB values of 0 to 1."""
    std: tuple[float, float, float]
    """Standard deviation of RGB values of 0 to 1."""
    resize: Literal["processor", "published", "rounded"]
    """Rule for the size where the cap applies; rounded: of the processor's size, both sides to multiples of 32."""
    backend: Literal["torchvision", "pil"]
    """Library that resizes. Both resize bilinearly with antialiasing on uint8."""
    strides: tuple[int, ...]
    """Strides of the network's feature maps."""
    num_queries: int
    """Number of positions of the feature maps that the network selects."""

    @staticmethod
    def of(
        image_processor: Any,
        network_config: Any,
        *,
        resize: Literal["processor", "published", "rounded"],
        backend: Literal["torchvision", "pil"],
    ) -> PixelTransform:
        """Return the transform of a loaded checkpoint.

        Raises:
            ValueError: the checkpoint's image processor works in another way.
        """
        size = image_processor.size
        if not size.shortest_edge or not size.longest_edge:
            raise ValueError(f"the detector's image processor has size {size}: it must have both edges.")
        if image_processor.resample != Image.Resampling.BILINEAR:
            raise ValueError(f"the detector's image processor resamples by {image_processor.resample}, not bilinear.")
        return PixelTransform(
            shortest_edge=size.shortest_edge,
            longest_edge=size.longest_edge,
            mean=tuple(image_processor.image_mean),
            std=tuple(image_processor.image_std),
            resize=resize,
            backend=backend,
            strides=_feature_strides(network_config),
            num_queries=network_config.num_queries,
        )

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of the network's input for an image of this size.

        The feature maps of a very narrow image (beyond 1:40 for the published size) can have fewer positions than the
        network has queries. Then the published code fails; here the input becomes wider by the least that suffices.
        """
        rule = published_size if self.resize == "published" else processor_size
        size = rule(height, width, self.shortest_edge, self.longest_edge)
        if self.resize == "rounded":
            size = (_rounded(size[0]), _rounded(size[1]))
        if self.positions(*size) >= self.num_queries:
            return size
        longer = min(max(size) or self.longest_edge, self.longest_edge)  # the short side may have rounded to 0
        sides = (min(size), longer) if height < width else (longer, min(size))
        while self.positions(*sides) < self.num_queries:
            sides = (sides[0] + 1, sides[1]) if sides[0] < sides[1] else (sides[0], sides[1] + 1)
        return sides

    def positions(self, height: int, width: int) -> int:
        """Return the number of positions on all feature maps for a network input of this size."""
        return sum(math.ceil(height / stride) * math.ceil(width / stride) for stride in self.strides)

    def apply(self, images: Sequence[NDArray[np.uint8]], size: tuple[int, int], device: torch.device) -> torch.Tensor:
        """Return the network's input: (B, 3, height, width) float32, normalized.

        Args:
            images: (H, W, 3) uint8 RGB.
            size: height and width of the network's input.
            device: where the input is needed.
        """
        resized = torch.stack([self._resized(image, size, device) for image in images])
        mean, std = (_on_device(values, device) for values in (self.mean, self.std))
        return (resized.permute(0, 3, 1, 2).float() / 255 - mean) / std

    def _resized(self, image: NDArray[np.uint8], size: tuple[int, int], device: torch.device) -> torch.Tensor:
        height, width = size
        if self.backend == "pil":
            picture = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
            return to_device(np.array(picture), device)
        pixels = to_device(image, device)
        return transforms.resize(pixels.permute(2, 0, 1), [height, width], antialias=True).permute(1, 2, 0)


@functools.lru_cache
def _on_device(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Return values of the three channels; copied to a device once, because a copy makes the host wait."""
    return torch.tensor(values, device=device)[:, None, None]


def published_size(height: int, width: int, shortest_edge: int, longest_edge: int) -> tuple[int, int]:
    """Return the size by the published code.

    Where the cap applies, the short side is rounded, and the long side is computed from it and truncated.
    """
    short, long = min(height, width), max(height, width)
    edge = shortest_edge
    if long / short * shortest_edge > longest_edge:
        edge = round(longest_edge * short / long)
    if short == edge:
        return height, width
    if width < height:
        return int(edge * height / width), edge
    return edge, int(edge * width / height)


def processor_size(height: int, width: int, shortest_edge: int, longest_edge: int) -> tuple[int, int]:
    """Return the size by the checkpoint's processor in transformers."""
    new_height, new_width = get_size_with_aspect_ratio((height, width), shortest_edge, longest_edge)
    return new_height, new_width


def _rounded(side: int) -> int:
    return max(ROUNDED_TO, round(side / ROUNDED_TO) * ROUNDED_TO)


def _feature_strides(network_config: Any) -> tuple[int, ...]:
    """Return the strides of a Swin backbone's selected stages and of the maps that further convolutions add."""
    backbone = network_config.backbone_config
    if backbone.model_type != "swin":
        raise ValueError(f"the detector's image backbone is {backbone.model_type}; only swin is known.")
    strides = [backbone.patch_size * 2 ** (stage - 1) for stage in backbone.out_indices]
    while len(strides) < network_config.num_feature_levels:
        strides.append(strides[-1] * 2)
    return tuple(strides)
