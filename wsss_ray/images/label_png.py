"""Label maps as PNG. The decoded class ids are exactly the encoded ones.

A label map is (H, W) uint8 or uint16, one class id per pixel. Only PNG whose samples are the ids is read: palette
(of any colors) and grey, of any bit depth. Colors, alpha and lossy files are refused, except where a caller gives
`decode_ids` the palette to translate plain RGB. EXIF in a label PNG has no meaning and is not read.
"""

import io
import zlib
from collections.abc import Collection, Sequence

import numpy as np
from PIL import Image

from wsss_ray.images.header import DEFAULT_MAX_PIXELS, ImageError, read_header
from wsss_ray.images.loading import load_with_pillow

_GREY, _RGB, _PALETTE = 0, 2, 3
_COLOR_TYPES = {_RGB: "RGB", 4: "grey with alpha", 6: "RGB with alpha"}
_REMEDY = "save the class ids themselves as an 8-bit palette PNG or an 8- or 16-bit grey PNG"


def encode_label(label: np.ndarray, *, palette: bytes | None) -> bytes:
    """Return the PNG of a label map; the same map and palette give the same bytes.

    label: (H, W) uint8 or uint16 class ids. palette: 768 bytes of RGB to show uint8 ids with, or None for grey; uint16
    is always 16-bit grey, as PNG knows no larger palette.
    """
    if label.ndim != 2 or label.dtype not in (np.uint8, np.uint16) or label.size == 0:
        raise ValueError(f"a label map is (H, W) uint8 or uint16, not {label.shape} {label.dtype}")
    image = Image.fromarray(np.ascontiguousarray(label))
    if palette is not None and label.dtype == np.uint8:
        if len(palette) != 768:
            raise ValueError(f"a palette is 768 bytes, R, G, B of ids 0 to 255; this one has {len(palette)}")
        image.putpalette(palette)
    stream = io.BytesIO()
    image.save(
        stream, "PNG", compress_level=3, compress_type=zlib.Z_RLE
    )  # ids come in runs: this makes files a third smaller
    return stream.getvalue()


def decode_label(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> np.ndarray:
    """Return the (H, W) class ids of a label PNG, exactly as stored: uint8, or uint16 for 16-bit grey.

    Raises `ImageError` for damaged files, and for anything but a palette or grey PNG; it says what to do instead.
    """
    header = read_header(data, max_pixels=max_pixels)
    if header.format != "PNG":
        lossy = " changes ids in compression" if header.format in {"JPEG", "WEBP", "AVIF"} else ""
        raise ImageError(f"not a label PNG: {header.format}{lossy}; {_REMEDY}")
    depth, color_type = data[24], data[25]
    if color_type in _COLOR_TYPES:
        raise ImageError(f"not ids: the PNG holds colors ({_COLOR_TYPES[color_type]}); {_REMEDY}")
    label = np.array(load_with_pillow(data, header))
    if color_type == _GREY and depth < 8:
        # Pillow spreads grey of 1, 2 and 4 bits over 0 to 255 (to booleans for 1 bit); ids are the stored numbers.
        label = label.astype(np.uint8) if depth == 1 else label // np.uint8(255 // (2**depth - 1))
    assert label.shape == (header.height, header.width)
    assert label.dtype in (np.uint8, np.uint16)
    return label


def decode_ids(data: bytes, *, palette: bytes | None, max_pixels: int = DEFAULT_MAX_PIXELS) -> np.ndarray:
    """Return the (H, W) ids of a label PNG, as `decode_label`; with a palette (768 bytes) also of plain 8-bit RGB.

    Plain RGB is translated by `colors_to_ids`: VOC masks are often saved that way. Raises `ImageError`.
    """
    header = read_header(data, max_pixels=max_pixels)
    if palette is not None and header.format == "PNG" and (data[24], data[25]) == (8, _RGB):
        return colors_to_ids(np.array(load_with_pillow(data, header)), palette)
    return decode_label(data, max_pixels=max_pixels)


def label_limit(size: Sequence[int]) -> int:
    """Return the most pixels that the label of an image of this (height, width, ...) may have, for `max_pixels`.

    Up to the default, a label of another size is reported as such; above it, a label may have no more pixels than its
    image.
    """
    return max(DEFAULT_MAX_PIXELS, size[0] * size[1])


def decode_truth(
    data: bytes,
    *,
    size: tuple[int, int],
    allowed_ids: Collection[int],
    ignore_id: int,
    palette: bytes | None = None,
    max_pixels: int | None = None,
) -> np.ndarray:
    """Return the (H, W) ids of a file of truth, read by `decode_ids` and checked by `check_truth`.

    `size` is the (height, width) it must have, and decides `max_pixels` where none is given. Raises `ImageError`.
    """
    label = decode_ids(data, palette=palette, max_pixels=label_limit(size) if max_pixels is None else max_pixels)
    check_truth(label, size, allowed_ids, ignore_id)
    return label


def check_truth(label: np.ndarray, size: tuple[int, int], allowed_ids: Collection[int], ignore_id: int) -> None:
    """Raise an `ImageError` unless the (H, W) label has the (height, width) `size` and only allowed ids or ignore."""
    check_label_size(label, size)
    ids = np.unique(label)
    unknown = ids[~np.isin(ids, [*allowed_ids, ignore_id])]
    if unknown.size:
        row, column = np.argwhere(label == unknown[0])[0]
        more = f" and {unknown.size - 1} more" if unknown.size > 1 else ""
        raise ImageError(
            f"unknown ids: {unknown[0]}{more}, first at row {row}, column {column}; "
            f"no class has this id and ignore is {ignore_id}"
        )


def check_label_size(label: np.ndarray, size: Sequence[int]) -> None:
    """Raise an `ImageError` unless the (H, W) label has the size of its image, which is (height, width, ...)."""
    if label.shape != tuple(size[:2]):
        raise ImageError(
            f"wrong size: {label.shape[1]} x {label.shape[0]}, its image is {size[1]} x {size[0]} (width x height)"
        )


def colors_to_ids(rgb: np.ndarray, palette: bytes) -> np.ndarray:
    """Return the (H, W) uint8 ids of an (H, W, 3) uint8 picture drawn in the palette's colors (768 bytes).

    Of ids that share a color the lowest is taken. A color outside the palette, as lossy files and smoothed edges have,
    raises an `ImageError` that names it and its first pixel.
    """
    colors = _packed(np.frombuffer(palette, dtype=np.uint8).reshape(-1, 3))
    known, ids = np.unique(colors, return_index=True)
    pixels = _packed(rgb)
    indices = np.minimum(np.searchsorted(known, pixels), known.size - 1)
    missing = known[indices] != pixels
    if missing.any():
        row, column = np.argwhere(missing)[0]
        color = ", ".join(str(value) for value in rgb[row, column])
        raise ImageError(f"unknown color: ({color}) at row {row}, column {column} is no class's color; {_REMEDY}")
    return ids.astype(np.uint8)[indices]


def orient_label(label: np.ndarray, orientation: int) -> np.ndarray:
    """Return an (H, W, ...) array turned upright from the EXIF orientation it is stored in, 1 to 8.

    The same turn as `PIL.ImageOps.exif_transpose`; 5 to 8 swap height and width. The result may be a view.
    """
    if not 1 <= orientation <= 8:
        raise ValueError(f"an EXIF orientation is 1 to 8, not {orientation}")
    if orientation >= 5:
        label = label.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        label = label[::-1]
    if orientation in {2, 3, 6, 7}:
        label = label[:, ::-1]
    return label


def _packed(rgb: np.ndarray) -> np.ndarray:
    return rgb[..., 0].astype(np.uint32) << 16 | rgb[..., 1].astype(np.uint32) << 8 | rgb[..., 2]
