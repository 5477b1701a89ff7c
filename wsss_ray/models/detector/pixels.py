"""Pictures as the detector's network takes them: the size rule, resizing and normalisation."""

from __future__ import annotations

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


@dataclass(frozen=True, kw_only=True)
class PixelTransform:
    """Resizing and normalisation of one checkpoint."""

    shortest_edge: int
    """Length of the network input's shorter side, in pixels, unless the cap applies."""
    longest_edge: int
    """Cap on the longer side."""
    mean: tuple[float, float, float]
    """Subtracted from RGB values of 0 to 1."""
    std: tuple[float, float, float]
    """Divided by after that."""
    resize: Literal["processor", "published"]
    """Which rule gives the size where the cap applies."""
    backend: Literal["torchvision", "pil"]
    """Who resizes: both bilinear with antialiasing on uint8."""
    strides: tuple[int, ...]
    """Strides of the network's feature maps."""
    num_queries: int
    """Places of the feature maps that the network picks."""

    @staticmethod
    def of(
        image_processor: Any,
        network_config: Any,
        *,
        resize: Literal["processor", "published"],
        backend: Literal["torchvision", "pil"],
    ) -> PixelTransform:
        """The transform of a loaded checkpoint. Raises ValueError where its processor does something else."""
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
        """Height and width of the network's input for an image of this size.

        An image so long and narrow (beyond 1:40 for the published size) that the feature maps would have fewer
        places than the network has queries is made less narrow, by the least that serves; the published code fails.
        """
        rule = published_size if self.resize == "published" else processor_size
        size = rule(height, width, self.shortest_edge, self.longest_edge)
        if self.places(*size) >= self.num_queries:
            return size
        longer = min(max(size) or self.longest_edge, self.longest_edge)  # the short side may have rounded to 0
        sides = (min(size), longer) if height < width else (longer, min(size))
        while self.places(*sides) < self.num_queries:
            sides = (sides[0] + 1, sides[1]) if sides[0] < sides[1] else (sides[0], sides[1] + 1)
        return sides

    def places(self, height: int, width: int) -> int:
        """Number of positions on all feature maps for a network input of this size."""
        return sum(math.ceil(height / stride) * math.ceil(width / stride) for stride in self.strides)

    def apply(self, images: Sequence[NDArray[np.uint8]], size: tuple[int, int], device: torch.device) -> torch.Tensor:
        """Resize (H, W, 3) uint8 RGB images to `size` (height, width): (B, 3, height, width) float32, normalised."""
        resized = torch.stack([self._resized(image, size, device) for image in images])
        mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (self.mean, self.std))
        return (resized.permute(0, 3, 1, 2).float() / 255 - mean) / std

    def _resized(self, image: NDArray[np.uint8], size: tuple[int, int], device: torch.device) -> torch.Tensor:
        height, width = size
        if self.backend == "pil":
            picture = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
            return to_device(np.array(picture), device)
        pixels = to_device(image, device)
        return transforms.resize(pixels.permute(2, 0, 1), [height, width], antialias=True).permute(1, 2, 0)


def published_size(height: int, width: int, shortest_edge: int, longest_edge: int) -> tuple[int, int]:
    """Size by the published code: with the cap the short side is rounded first and the other truncated from it."""
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
    """Size by the checkpoint's processor in transformers."""
    new_height, new_width = get_size_with_aspect_ratio((height, width), shortest_edge, longest_edge)
    return new_height, new_width


def _feature_strides(network_config: Any) -> tuple[int, ...]:
    """Strides of a Swin backbone's chosen stages and of the maps that convolutions of stride 2 add."""
    backbone = network_config.backbone_config
    if backbone.model_type != "swin":
        raise ValueError(f"the detector's image backbone is {backbone.model_type}; only swin is known.")
    strides = [backbone.patch_size * 2 ** (stage - 1) for stage in backbone.out_indices]
    while len(strides) < network_config.num_feature_levels:
        strides.append(strides[-1] * 2)
    return tuple(strides)
