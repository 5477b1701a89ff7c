"""Read images that a user's program passes: paths, PIL images or arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsss_ray.images.decoding import decode_image

ImageLike = str | Path | Image.Image | NDArray[np.uint8]


def read_pixels(image: ImageLike) -> NDArray[np.uint8]:
    """Return the (H, W, 3) uint8 RGB pixels of an image. A file is turned upright by its EXIF orientation.

    Raises:
        ValueError: an array of another type or shape.
        ImageError: the file cannot be decoded.
        OSError: the file cannot be read.
    """
    if isinstance(image, str | Path):
        return decode_image(Path(image).read_bytes(), exif="apply")
    if isinstance(image, Image.Image):
        return np.array(image.convert("RGB"))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"an image is {image.dtype} of shape {image.shape}: give (height, width, 3) of uint8 RGB.")
    return image
