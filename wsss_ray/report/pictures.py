"""Pictures of the gallery: thumbnails, larger pictures, and label maps as overlays."""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from PIL import Image

from wsss_ray.classes import IGNORE_COLOR, ClassSet

QUALITY = 80


def fit(height: int, width: int, longest: int) -> tuple[int, int]:
    """Return the (height, width) of a picture scaled down to a longest side, at least 1 pixel; never scaled up."""
    scale = min(1.0, longest / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def encode_photo(image: np.ndarray, longest: int) -> bytes:
    """Return the JPEG of an (H, W, 3) uint8 RGB image, scaled down to a longest side."""
    height, width = fit(image.shape[0], image.shape[1], longest)
    if (height, width) != image.shape[:2]:
        image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0))
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=QUALITY)


class Overlay:
    """Draws label maps in their classes' colors, with a transparent background."""

    def __init__(self, classes: ClassSet) -> None:
        """Take the colors of a class set."""
        self._colors = np.zeros((65536, 4), np.uint8)
        self._colors[classes.ignore_id] = (*IGNORE_COLOR, 255)
        for entry in classes.classes:
            self._colors[entry.id] = (*entry.color, 255)

    def encode(self, label: np.ndarray, longest: int) -> bytes:
        """Return the PNG of an (H, W) uint8 or uint16 label map, scaled down to a longest side by nearest pixel."""
        height, width = fit(label.shape[0], label.shape[1], longest)
        rows = ((np.arange(height) + 0.5) * label.shape[0] / height).astype(np.intp)
        columns = ((np.arange(width) + 0.5) * label.shape[1] / width).astype(np.intp)
        ids, indexes = np.unique(label[np.ix_(rows, columns)], return_inverse=True)
        colors = self._colors[ids]
        if len(ids) <= 256:
            image = Image.fromarray(indexes.reshape(height, width).astype(np.uint8))
            image.putpalette(colors.tobytes(), "RGBA")
        else:
            image = Image.fromarray(colors[indexes.reshape(height, width)])
        stream = io.BytesIO()
        image.save(stream, "PNG", compress_level=6)
        return stream.getvalue()
