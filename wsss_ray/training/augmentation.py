"""What is done to a sample before the network sees it: resize, pad, crop, mirror. NumPy and Pillow alone.

As DeepLab-v2 is trained: a factor drawn from a list, the image bilinear and the label nearest; padding at the bottom
and the right, with the mean colour and ignore; a random crop; mirrored every other time.
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
    """Factors of which one is drawn."""
    flip: bool
    """Whether to mirror every other sample."""
    fill: tuple[int, int, int]
    """RGB of the padding."""

    def __call__(
        self, image: np.ndarray, label: np.ndarray, random: np.random.Generator, *, ignore: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Augment one sample.

        Args:
            image: (H, W, 3) uint8 RGB.
            label: (H, W) uint8 or uint16 ids.
            random: four numbers are drawn, whatever the image and settings.
            ignore: id of the padding.

        Returns:
            (crop, crop, 3) uint8 and (crop, crop) of the label's type, contiguous.
        """
        choice, down, across, mirror = random.random(4)
        scale = self.scales[int(choice * len(self.scales))]
        height, width = scaled_size(image.shape[:2], scale)
        image, label = _resize(image, label, height, width)
        top = int(down * (max(height - self.crop, 0) + 1))
        left = int(across * (max(width - self.crop, 0) + 1))
        image = image[top : top + self.crop, left : left + self.crop]
        label = label[top : top + self.crop, left : left + self.crop]
        padded = np.empty((self.crop, self.crop, 3), np.uint8)
        padded[:] = self.fill
        padded[: image.shape[0], : image.shape[1]] = image
        padded_label = np.full((self.crop, self.crop), ignore, label.dtype)
        padded_label[: label.shape[0], : label.shape[1]] = label
        if self.flip and mirror < 0.5:
            padded, padded_label = padded[:, ::-1], padded_label[:, ::-1]
        return np.ascontiguousarray(padded), np.ascontiguousarray(padded_label)


def scaled_size(size: tuple[int, ...], scale: float) -> tuple[int, int]:
    """(height, width) after resizing by a factor: rounded down, as published, and at least 1."""
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


def _resize(image: np.ndarray, label: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    if image.shape[:2] == (height, width):
        return image, label
    pixels = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    ids = Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(pixels), np.asarray(ids)
