"""Decode images to RGB pixels, by rules that hold for every file.

Each mode becomes (H, W, 3) uint8 RGB:

- 8-bit grey, palette, RGB, CMYK, YCbCr, LAB, HSV and 1-bit: as `PIL.Image.convert("RGB")`, the reading of the
  published code (OpenCV's, which it uses for SAM, gives the same pixels of a JPEG). Adobe's inverted CMYK is
  corrected; color profiles are not applied.
- Alpha and transparent colors are dropped, not blended, also as `convert("RGB")`: a trainer that reads the same file
  the usual way sees the same pixels as the labeller.
- 16 bits per sample: the high byte, for grey as for color, so that 65535 is white (Pillow by itself clips grey).
- 32-bit integers and floats (TIFF) have no fixed white. White is the first of 1 (floats only), 255, 65535 and
  2**31 - 1 that no pixel exceeds; below zero is black; not-a-number and infinity are refused.

Of a file with several pictures the first frame, page or main picture is read. EXIF orientation: `apply` turns the
picture upright, as viewers show it, `ignore` keeps the stored pixels; the rule must be the same for all of a shard.
Damaged files are refused even where a decoder would fill the gap with grey or continue with wrong colors.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import simplejpeg
from PIL import Image

from wsss_ray.images.header import DEFAULT_MAX_PIXELS, Header, ImageError, image_errors, read_header
from wsss_ray.images.label_png import orient_label
from wsss_ray.images.loading import load_with_pillow

ExifRule = Literal["apply", "ignore"]

_EXTRANEOUS = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0x([0-9a-f]{2})")


def read_size(data: bytes, *, exif: ExifRule, max_pixels: int = DEFAULT_MAX_PIXELS) -> tuple[int, int]:
    """Return the (height, width) of what `decode_image` returns under the same rule, from the header alone.

    Raises `ImageError` where the header is wrong; a file that is damaged after it still has a size.
    """
    return read_header(data, max_pixels=max_pixels).shown_size(turned=exif == "apply")


def exif_orientation(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> int:
    """Return the EXIF orientation of an encoded image, 1 to 8; 1 where there is none.

    Raises `ImageError` where it is no image or has more than `max_pixels`.
    """
    return read_header(data, max_pixels=max_pixels).orientation


def decode_image(data: bytes, *, exif: ExifRule, max_pixels: int = DEFAULT_MAX_PIXELS) -> np.ndarray:
    """Return the (H, W, 3) uint8 RGB of an encoded image, writable and contiguous.

    Raises `ImageError` with a short reason. The size is compared with `max_pixels` before anything is decoded. The
    caller limits the length of `data`.
    """
    return _decode(data, read_header(data, max_pixels=max_pixels), exif)


def decode_row(row: Mapping[str, Any], *, exif: ExifRule) -> np.ndarray:
    """Return the pixels of an image row (`image`, `height`, `width`), which must have the row's size.

    The sizes are compared before anything is decoded; `read_unit` has compared the row's with the shard's limit.
    """
    header = read_header(row["image"], max_pixels=row["height"] * row["width"])
    height, width = header.shown_size(turned=exif == "apply")
    if (height, width) != (row["height"], row["width"]):
        raise ImageError(f"wrong size: the image is {width} x {height}, its row says {row['width']} x {row['height']}")
    return _decode(row["image"], header, exif)


def _decode(data: bytes, header: Header, exif: ExifRule) -> np.ndarray:
    assert exif in {"apply", "ignore"}, exif
    if header.format == "JPEG":
        pixels = _decode_jpeg(data, header)
    else:
        pixels = to_rgb(load_with_pillow(data, header))
        if header.format == "TIFF":
            pixels = orient_label(pixels, {6: 8, 8: 6}.get(header.orientation, header.orientation))
    if pixels.shape != (header.height, header.width, 3):
        raise ImageError(f"corrupt: the {header.format} data does not have the size that its header claims")
    if exif == "apply":
        pixels = orient_label(pixels, header.orientation)
    return np.ascontiguousarray(pixels)


def to_rgb(image: Image.Image) -> np.ndarray:
    """Return the (H, W, 3) uint8 RGB of a loaded Pillow image of any mode, by the rules of this module."""
    with image_errors(image.format or image.mode):
        if image.mode.startswith("I;16"):
            return _grey_to_rgb((np.asarray(image) >> 8).astype(np.uint8))
        if image.mode == "I":
            return _grey_to_rgb(_scaled(np.asarray(image), (255, 65535, 2**31 - 1)))
        if image.mode == "F":
            return _grey_to_rgb(_scaled(np.asarray(image), (1, 255, 65535, 2**31 - 1)))
        if image.mode in {"RGBa", "La"}:
            image = image.convert(image.mode.upper())
        # Else Pillow would search the transparent color among the RGB ones, and warn about the palette's.
        image.info.pop("transparency", None)
        return np.array(image.convert("RGB"))


def _grey_to_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, axis=2)


def _scaled(values: np.ndarray, whites: tuple[int, ...]) -> np.ndarray:
    top = values.max()
    white = next((white for white in whites if top <= white), None)
    if white is None or not np.isfinite(values).all():
        raise ImageError("unsupported picture: its samples are not numbers from 0 to 1, 255, 65535 or 2147483647")
    return np.rint(np.clip(values, 0, white) * np.float32(255 / white)).astype(np.uint8)


def _decode_jpeg(data: bytes, header: Header) -> np.ndarray:
    """Decode by simplejpeg, which reports wrong codes where Pillow does not; its pixels are the same."""
    try:
        pixels = simplejpeg.decode_jpeg(data, "CMYK" if header.bands == 4 else "RGB", strict=True)
    except ValueError as error:
        reason = _jpeg_damage(str(error))
        if reason is not None:
            raise ImageError(reason) from error
        pixels = None  # stray bytes between segments, or a rare sampling: Pillow decodes it or refuses
    if pixels is None or header.bands == 4:
        pixels = to_rgb(load_with_pillow(data, header))
    return pixels


def _jpeg_damage(message: str) -> str | None:
    """Return why a message of libjpeg means lost pixels, or None where it does not.

    Bytes left over at the end of a scan indicate a misread code; one or two are padding that cameras write. Those
    between other segments change no pixel.
    """
    if message.startswith("Premature end"):
        return "truncated: the JPEG data ends early"
    stray = _EXTRANEOUS.match(message)
    if stray:
        count, marker = int(stray[1]), int(stray[2], 16)
        in_scan = 0xD0 <= marker <= 0xDA or marker == 0xC4
        return f"corrupt: the JPEG data has {count} bytes too many in a scan" if in_scan and count > 2 else None
    if message.startswith("Corrupt JPEG data"):
        return f"corrupt: the JPEG data has a {message.partition(': ')[2]}"
    return None
