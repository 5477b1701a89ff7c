"""DenseCRF (Kraehenbuehl and Koltun 2011): refines probabilities along the edges of the image.

Mean field inference with two Gaussian kernels, one over positions and one over positions and colors, by the
permutohedral lattice. The arithmetic is that of the published code: kernels include the pixel itself and are normalized
symmetrically, the compatibility is Potts', and probabilities have a lower bound before their logarithm is taken.

Shapes: C classes, K classes kept, H x W image, N = H * W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wsss_ray.config.predict import CrfConfig
from wsss_ray.models.crf.permutohedral import PermutohedralLattice
from wsss_ray.models.device import to_device

SMALLEST_PROBABILITY = 1e-5
"""Lower bound of probabilities, as in the published code."""


class _Kernel:
    """A Gaussian kernel, symmetrically normalized, with its weight."""

    def __init__(self, features: Tensor, weight: float) -> None:
        self._lattice = PermutohedralLattice(features)
        self._weight = weight
        mass = self._lattice.filter(features.new_ones(features.shape[0], 1))
        self._norm = torch.rsqrt(mass + 1e-20)

    def message(self, beliefs: Tensor) -> Tensor:
        """Return the message (N, K) that each pixel receives from the (N, K) beliefs of all pixels."""
        return self._weight * self._norm * self._lattice.filter(self._norm * beliefs)


def dense_crf(image: np.ndarray, probabilities: Tensor, settings: CrfConfig) -> Tensor:
    """Refine the probabilities of one image.

    Args:
        image: (H, W, 3) uint8 RGB, not normalized.
        probabilities: (C, H, W) float32, summing to one over the classes. The CRF runs on their device.
        settings: weights, widths, iterations, and the threshold below which a class is left out.

    Returns:
        (C, H, W) float32 on the same device, summing to one; zero for classes that were left out.

    Raises:
        ValueError: the shapes differ, or widths are too small for the size of the image.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"the image must be (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}")
    if probabilities.ndim != 3 or tuple(probabilities.shape[1:]) != image.shape[:2]:
        raise ValueError(f"probabilities {tuple(probabilities.shape)} do not belong to an image of {image.shape[:2]}")
    with torch.no_grad(), torch.autocast(probabilities.device.type, enabled=False):
        probabilities = probabilities.float()
        kept = _classes_to_keep(probabilities, settings.prune)
        result = torch.zeros_like(probabilities)
        result[kept] = _mean_field(image, probabilities[kept], settings)
    return result


def _classes_to_keep(probabilities: Tensor, threshold: float) -> Tensor:
    """Return (C,) bool: classes that reach the threshold at a pixel, and those that are the likeliest at a pixel."""
    kept = probabilities.amax((1, 2)) >= threshold
    return kept.scatter_(0, probabilities.argmax(0).flatten(), True)


def _mean_field(image: np.ndarray, probabilities: Tensor, settings: CrfConfig) -> Tensor:
    """Return the (K, H, W) beliefs after the iterations, from (K, H, W) probabilities."""
    count, height, width = probabilities.shape
    unary = probabilities.reshape(count, -1).T.contiguous().clamp(min=SMALLEST_PROBABILITY, max=1.0).log()
    if count == 1:
        return torch.ones_like(probabilities)
    kernels = _kernels(image, settings, probabilities.device)
    beliefs = torch.softmax(unary, 1)
    for _ in range(settings.iterations):
        beliefs = torch.softmax(sum((kernel.message(beliefs) for kernel in kernels), unary), 1)
    return beliefs.T.reshape(count, height, width)


def _kernels(image: np.ndarray, settings: CrfConfig, device: torch.device) -> list[_Kernel]:
    """Return the kernels of more than zero weight."""
    height, width = image.shape[:2]
    sides = (torch.arange(length, device=device) for length in (height, width))
    rows, columns = torch.meshgrid(*sides, indexing="ij")
    positions = torch.stack([columns.flatten(), rows.flatten()], 1).float()
    colors = to_device(image, device).reshape(-1, 3).float()
    kernels = []
    if settings.position_weight > 0:
        kernels.append(_Kernel(positions / settings.position_width, settings.position_weight))
    if settings.bilateral_weight > 0:
        both = torch.cat([positions / settings.xy_width, colors / settings.rgb_width], 1)
        kernels.append(_Kernel(both, settings.bilateral_weight))
    return kernels
