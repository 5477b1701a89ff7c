"""Encoded images of an export, which every reader shows in the orientation of their labels.

Some readers turn an image by its EXIF orientation (OpenCV, detectron2, `datasets`), others do not (Pillow alone,
pycocotools' users). An image is therefore exported with the pixels that its label belongs to, and without an
orientation. Nearly all images are like this already and keep their bytes. Of the others,

- shards that apply EXIF give the image turned upright and encoded again: JPEG of quality 95 without chroma
  subsampling for a JPEG, PNG for other formats;
- shards that ignore EXIF give a JPEG without its EXIF and XMP segments, with the same scans; PNG for other formats.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image

from wsss_ray.images.decoding import ExifRule, decode_image
from wsss_ray.images.header import DEFAULT_MAX_PIXELS, read_header

SUFFIXES = {
    "AVIF": ".avif",
    "BMP": ".bmp",
    "GIF": ".gif",
    "JPEG": ".jpg",
    "PNG": ".png",
    "TIFF": ".tif",
    "WEBP": ".webp",
}
_JPEG_QUALITY = 95
_XMP_TURN = re.compile(rb"tiff:Orientation(?:>|\s*=\s*[\"'])\s*[2-8]")
_START_OF_SCAN, _APP1, _APP2 = 0xDA, 0xE1, 0xE2


@dataclass(frozen=True, kw_only=True)
class PortableImage:
    """An encoded image for an export."""

    data: bytes
    suffix: str
    """File name suffix of its format, with the dot."""
    change: str | None = None
    """Difference to the original bytes: "turned upright", "orientation removed" or None."""


def portable_image(data: bytes, *, exif: ExifRule, max_pixels: int = DEFAULT_MAX_PIXELS) -> PortableImage:
    """Return the image for an export, by the rules in this module's docstring.

    Args:
        data: original bytes.
        exif: rule of the image's shard.
        max_pixels: larger images are refused.

    Raises:
        ImageError: the image cannot be read.
    """
    header = read_header(data, max_pixels=max_pixels)
    is_jpeg = header.format == "JPEG"
    if exif == "apply" and header.orientation != 1:
        pixels = decode_image(data, exif="apply", max_pixels=max_pixels)
        if is_jpeg:
            turned = simplejpeg.encode_jpeg(pixels, quality=_JPEG_QUALITY, colorsubsampling="444")
            return PortableImage(data=turned, suffix=".jpg", change="turned upright")
        return PortableImage(data=_png(pixels), suffix=".png", change="turned upright")
    # Pillow's exif_transpose, which `datasets` uses, also obeys an orientation in XMP if EXIF has none; shards do not.
    if header.orientation != 1 or _XMP_TURN.search(data):
        if is_jpeg:
            return PortableImage(data=_without_exif(data), suffix=".jpg", change="orientation removed")
        pixels = decode_image(data, exif="ignore", max_pixels=max_pixels)
        return PortableImage(data=_png(pixels), suffix=".png", change="orientation removed")
    return PortableImage(data=data, suffix=SUFFIXES[header.format])


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=3)
    return stream.getvalue()


def _without_exif(jpeg: bytes) -> bytes:
    """Return the JPEG without EXIF and XMP (APP1), and without the offsets of further images (APP2), which changed."""
    kept = [jpeg[:2]]
    position = 2
    while (marker := jpeg.find(b"\xff", position)) >= 0 and marker + 4 <= len(jpeg):
        kind = jpeg[marker + 1]
        if kind == _START_OF_SCAN:
            break
        if kind in {0x00, 0x01, 0xFF} or 0xD0 <= kind <= 0xD8:  # a marker without a length, or a fill byte
            end = marker + 1 if kind == 0xFF else marker + 2
        else:
            end = marker + 2 + int.from_bytes(jpeg[marker + 2 : marker + 4], "big")
        if not (kind == _APP1 or (kind == _APP2 and jpeg[marker + 4 : marker + 8] == b"MPF\0")):
            kept.append(jpeg[position:end])
        position = end
    kept.append(jpeg[position:])
    return b"".join(kept)
