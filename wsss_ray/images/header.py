"""Header of an image file: its format, stored size and EXIF orientation, before a pixel is decoded.

The format follows from the content, never from the file's name. Only the formats of `FORMATS` are read, and of each
file the first frame (GIF, animated WEBP and PNG, AVIF sequences), the first page (TIFF) or the main picture
(multi-picture JPEG).

Pillow's lazy headers serve BMP, TIFF, WEBP and AVIF. JPEG, PNG and GIF are parsed here, because Pillow counts no scans,
reads no EXIF after a PNG's pixels, and allocates a GIF's frame at once. Pillow's plug-ins are used one by one, not
through `Image.open`: its pixel limit is a process-wide setting with warnings of its own, while ours is an argument.
"""

import io
import itertools
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image, ImageFile, features
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from wsss_ray.images.exif import ORIENTATION_TAG, exif_of_png_text, orientation_of_exif, valid_orientation

DEFAULT_MAX_PIXELS = 100_000_000
LARGEST_MAX_PIXELS = 1_000_000_000
"""Largest limit that can be set (3 GB as RGB)."""
DEFAULT_MAX_FILE_BYTES = 200_000_000
"""Larger files of images and labels are not read."""

_PLUGINS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "TIFF": TiffImageFile,
    "WEBP": WebPImageFile,
}
if features.check("avif"):
    _PLUGINS["AVIF"] = AvifImageFile
FORMATS = tuple(sorted(_PLUGINS))

_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")
"""Start of a segment; fill bytes, restart markers and escaped bytes of the pixel data are none."""
_SCAN = 0xDA
_FEWEST_SCANS, _MOST_SCANS, _MOST_SCANNED_PIXELS = 20, 100, 2_000_000_000
"""A JPEG may have 20 scans, and up to 100 where they go over no more than this many pixels together: 10 to 20 s."""

_AVIF_BRAND = re.compile(rb".{4}ftyp.{0,60}avi[fs]", re.DOTALL)
_SIGNATURES = (
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("WEBP", re.compile(rb"RIFF.{4}WEBP", re.DOTALL)),
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("BMP", re.compile(rb"BM")),
    ("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]")),
    ("AVIF", _AVIF_BRAND),
    ("HEIF", re.compile(rb".{4}ftyp(hei|hev|mif|msf)", re.DOTALL)),
    ("JPEG XL", re.compile(rb"\xff\x0a|\0\0\0\x0cJXL ")),
    ("JPEG 2000", re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  ")),
    ("ICO", re.compile(rb"\0\0[\1\2]\0")),
    ("PSD", re.compile(rb"8BPS")),
    ("PDF", re.compile(rb"%PDF")),
)


class ImageError(ValueError):
    """A file that cannot be read as a picture. `str()` is the reason, "kind: details"; the kinds are

    `empty`, `not an image`, `unsupported format`, `too many pixels`, `too many scans`, `truncated`, `corrupt`,
    `unsupported picture`, `text bomb`, and for labels `not a label PNG`, `not ids`, `wrong size`, `unknown ids`,
    `unknown color`.
    """


@dataclass(frozen=True, kw_only=True)
class Header:
    """Header of a file as it claims, in pixels as stored, before any EXIF orientation is applied."""

    format: str
    height: int
    width: int
    orientation: int = 1
    """EXIF orientation, 1 to 8."""
    bands: int | None = None
    """JPEG only: number of color components."""

    def shown_size(self, *, turned: bool) -> tuple[int, int]:
        """Return the (height, width) of the stored picture, or of the picture turned upright."""
        return (self.width, self.height) if turned and self.orientation >= 5 else (self.height, self.width)


def read_header(data: bytes, *, max_pixels: int) -> Header:
    """Return format, stored size and orientation of an encoded image; raises `ImageError`, also above `max_pixels`."""
    if not data:
        raise ImageError("empty: the file has no bytes")
    file_format = _format_of(data)
    if file_format == "JPEG":
        header = _jpeg_header(data)
    elif file_format == "PNG":
        header = _png_header(data)
    else:
        if file_format == "GIF":
            # Pillow allocates a GIF's first frame while it opens the file, so the size must be known before.
            _check_size(_gif_header(data), max_pixels)
        header = _header_by_pillow(data, file_format)
    _check_size(header, max_pixels)
    return header


def open_with_pillow(data: bytes, file_format: str) -> ImageFile.ImageFile:
    """Return the lazily opened file. To be called within `image_errors`."""
    return _PLUGINS[file_format](io.BytesIO(data))


@contextmanager
def image_errors(file_format: str) -> Iterator[None]:
    """Turn any exception of a decoder on hostile bytes into an `ImageError` with a stable reason."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(_reason(file_format, error)) from error


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, start, length) of each chunk's content up to IEND; a cut file ends early."""
    position = 8
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        yield kind, position + 8, length
        if kind == b"IEND":
            return
        position += 12 + length


def _format_of(data: bytes) -> str:
    found = next((name for name, signature in _SIGNATURES if signature.match(data)), None)
    known = ", ".join(FORMATS)
    if found is None:
        raise ImageError(f"not an image: the content is none of {known}")
    if found not in _PLUGINS:
        raise ImageError(f"unsupported format: {found}; convert it to one of {known}")
    return found


def _check_size(header: Header, max_pixels: int) -> None:
    height, width = header.height, header.width
    if height < 1 or width < 1:
        raise ImageError(f"corrupt: the {header.format} header claims {width} x {height} pixels")
    if height * width > max_pixels:
        raise ImageError(f"too many pixels: {width} x {height} (width x height) is above the limit of {max_pixels}")


def _reason(file_format: str, error: Exception) -> str:
    text = str(error).lower()
    if isinstance(error, Image.DecompressionBombError):
        return f"too many pixels: above what Pillow reads of a {file_format}"
    if "decompressed data too large" in text or "memory used in text" in text:
        return f"text bomb: text or profile of the {file_format} unpacks to too many bytes"
    if isinstance(error, (EOFError, struct.error)) or "truncated" in text or "not enough image data" in text:
        return f"truncated: the {file_format} data ends early"
    return f"corrupt: the {file_format} data is damaged or of a kind that Pillow cannot read"


def _header_by_pillow(data: bytes, file_format: str) -> Header:
    with image_errors(file_format):
        image = open_with_pillow(data, file_format)
        width, height = image.size
        if isinstance(image, TiffImageFile):
            # Pillow turns only TIFF upright while loading, and reports the upright size before that.
            orientation = valid_orientation(image.tag_v2.get(ORIENTATION_TAG))
            width, height = image.tag_v2[256], image.tag_v2[257]
        else:
            orientation = orientation_of_exif(image.info.get("exif", b""))
    return Header(format=file_format, height=height, width=width, orientation=orientation)


def _jpeg_header(data: bytes) -> Header:
    """Read the segments before the first scan. Stray bytes between them are skipped, as libjpeg does."""
    frame, exif = None, b""
    for marker, start, length in _jpeg_segments(data):
        if marker == _SCAN:
            break
        segment = data[start : start + length]
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC} and len(segment) >= 6:
            frame = struct.unpack_from(">HHB", segment, 1)
        elif marker == 0xE1 and segment.startswith(b"Exif\0\0") and not exif:
            exif = segment
    if frame is None:
        raise ImageError("truncated: the JPEG data ends before the size of the picture")
    height, width, bands = frame
    _check_scans(data, height * width)
    return Header(format="JPEG", height=height, width=width, orientation=orientation_of_exif(exif), bands=bands)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, length) of each segment's content up to the end of the picture."""
    position = 2
    while (found := _JPEG_MARKER.search(data, position)) and found.end() + 2 <= len(data):
        marker = data[found.end() - 1]
        if marker == 0xD9:
            return
        length = int.from_bytes(data[found.end() : found.end() + 2], "big")
        yield marker, found.end() + 2, max(length - 2, 0)
        position = found.end() + length


def _check_scans(data: bytes, pixels: int) -> None:
    """Refuse a JPEG whose scans would make a decoder pass over the pixels too often. Cameras write up to ten scans."""
    allowed = max(_FEWEST_SCANS, min(_MOST_SCANS, _MOST_SCANNED_PIXELS // max(pixels, 1)))
    if data.count(bytes([0xFF, _SCAN])) <= allowed:  # far quicker, and counts no scan too few
        return
    scans = (marker for marker, _, _ in _jpeg_segments(data) if marker == _SCAN)
    if next(itertools.islice(scans, allowed, None), None) is not None:
        raise ImageError(f"too many scans: a JPEG of this size may have {allowed}; save it again as a baseline JPEG")


def _png_header(data: bytes) -> Header:
    if len(data) < 33:
        raise ImageError("truncated: the PNG data ends before the size of the picture")
    if data[12:16] != b"IHDR":
        raise ImageError("corrupt: the PNG does not begin with its header")
    width, height = struct.unpack_from(">II", data, 16)
    exif, profile = b"", b""
    for kind, start, length in png_chunks(data):
        content = memoryview(data)[start : start + length]
        if kind == b"eXIf":
            exif = bytes(content)
        elif kind in {b"tEXt", b"zTXt"} and bytes(content[:22]) == b"Raw profile type exif\0":
            profile = exif_of_png_text(bytes(content[22:]), packed=kind == b"zTXt")
    return Header(format="PNG", height=height, width=width, orientation=orientation_of_exif(exif or profile))


def _gif_header(data: bytes) -> Header:
    """Return the size of the screen, enlarged where the first frame reaches beyond it, as Pillow does."""
    with image_errors("GIF"):
        width, height, flags = struct.unpack_from("<HHB", data, 6)
        position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
        while position < len(data) and data[position] != ord(";"):
            if data[position] == ord("!"):
                position += 2
                while position < len(data) and data[position]:
                    position += 1 + data[position]
            elif data[position] == ord(","):
                left, top, frame_width, frame_height = struct.unpack_from("<4H", data, position + 1)
                return Header(
                    format="GIF", height=max(height, top + frame_height), width=max(width, left + frame_width)
                )
            position += 1
    raise ImageError("truncated: the GIF data ends before its first frame")
