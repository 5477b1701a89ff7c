"""Decode a file by Pillow. Its exceptions become `ImageError`."""

import zlib

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from wsss_ray.images.header import Header, ImageError, image_errors, open_with_pillow, png_chunks


def load_with_pillow(data: bytes, header: Header) -> Image.Image:
    """Return the decoded first frame, in the mode and orientation it is stored in (a TIFF: turned upright).

    `header` is what `read_header` returned for the same bytes, so the size has passed its limit.
    """
    if header.format == "PNG":
        _check_png(data)
    with image_errors(header.format):
        image = open_with_pillow(data, header.format)
        if isinstance(image, TiffImageFile):
            # If the canvas is given before, Pillow does not compare the size with its own process-wide limit.
            image.im = Image.core.new(image.mode, (header.width, header.height))  # type: ignore[attr-defined]
            # Pillow would turn the picture by an orientation in XMP too; the rule here is EXIF alone.
            image.info.pop("xmp", None)
        image.load()
    return image


def _check_png(data: bytes) -> None:
    """Verify the checksums of all chunks: Pillow skips those of the image data."""
    view, last = memoryview(data), b""
    for kind, start, length in png_chunks(data):
        end, last = start + length, kind
        if end + 4 > len(data):
            break
        if zlib.crc32(view[start - 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise ImageError("corrupt: a chunk of the PNG fails its checksum")
    if last != b"IEND":
        raise ImageError("truncated: the PNG data ends early")
