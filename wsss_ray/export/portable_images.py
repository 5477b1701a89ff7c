"""The image of an export: bytes that every reader sees as the label does.

Some readers turn an image by its EXIF orientation (OpenCV, detectron2, `datasets`), others do not (Pillow alone,
pycocotools' users). An image is therefore exported so that its stored pixels are those the label belongs to and nothing
asks for a turn. Nearly all images are so already: they keep their bytes. Of the others,

- shards that apply EXIF give the picture turned upright and encoded anew: JPEG of quality 95 without chroma
  subsampling for a JPEG, PNG for the rest;
- shards that ignore EXIF give a JPEG the same scans without its EXIF and XMP segments; for the rest, PNG.
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
    """What was done to it: "turned upright", "orientation removed", or None where the bytes are the original ones."""


def portable_image(data: bytes, *, exif: ExifRule, max_pixels: int = DEFAULT_MAX_PIXELS) -> PortableImage:
    """The image of an export, by the rules at the head of this module.

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
    # Pillow's own turn, which `datasets` uses, also obeys an orientation in XMP where EXIF has none; the shards do not.
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
    """The JPEG without EXIF and XMP (APP1), and the list of further pictures (in APP2), whose places have moved."""
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
