"""Augment samples: resize, pad, crop, mirror. Needs only NumPy and Pillow.

As in DeepLab-v2's training: a random factor of a list, the image bilinear and the label nearest; padding at the bottom
and the right with the mean color and the ignore id; a random crop; mirrored with probability 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Settings of the augmentation."""

    crop: int
    """Side of the crops in pixels."""
    scales: tuple[float, ...]
    """Factors; one is drawn for each sample."""
    flip: bool
    """Whether to mirror samples, with probability 0.5."""
    fill: tuple[int, int, int]
    """RGB of the padding."""

    def __call__(
        self, image: np.ndarray, label: np.ndarray, random: np.random.Generator, *, ignore: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Augment one sample.

        Args:
            image: (H, W, 3) uint8 RGB.
            label: (H, W) uint8 or uint16 ids.
            random: exactly four numbers are drawn, for any image and settings.
            ignore: id of the padding.

        Returns:
            (crop, crop, 3) uint8 and (crop, crop) of the label's type, contiguous.
        """
        choice, down, across, mirror = random.random(4)
        height, width = scaled_size(image.shape[:2], self.scales[int(choice * len(self.scales))])
        top = int(down * (max(height - self.crop, 0) + 1))
        left = int(across * (max(width - self.crop, 0) + 1))
        window = (top, left, min(top + self.crop, height), min(left + self.crop, width))
        image, label = _resized_window(image, label, height, width, window)
        padded = np.empty((self.crop, self.crop, 3), np.uint8)
        padded[:] = self.fill
        padded[: image.shape[0], : image.shape[1]] = image
        padded_label = np.full((self.crop, self.crop), ignore, label.dtype)
        padded_label[: label.shape[0], : label.shape[1]] = label
        if self.flip and mirror < 0.5:
            padded, padded_label = padded[:, ::-1], padded_label[:, ::-1]
        return np.ascontiguousarray(padded), np.ascontiguousarray(padded_label)


def scaled_size(size: tuple[int, ...], scale: float) -> tuple[int, int]:
    """Return (height, width) after resizing by a factor: rounded down, as published, and at least 1."""
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


def _resized_window(
    image: np.ndarray, label: np.ndarray, height: int, width: int, window: tuple[int, int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return a window (top, left, bottom, right) of the sample resized to a height and width.

    Only that part is resized, which is several times faster; at the window's border, interpolation does not use pixels
    outside.
    """
    top, left, bottom, right = window
    if image.shape[:2] == (height, width):
        return image[top:bottom, left:right], label[top:bottom, left:right]
    down, across = image.shape[0] / height, image.shape[1] / width
    box = (left * across, top * down, right * across, bottom * down)
    size = (right - left, bottom - top)
    pixels = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, box=box)
    ids = Image.fromarray(label).resize(size, Image.Resampling.NEAREST, box=box)
    return np.asarray(pixels), np.asarray(ids)
