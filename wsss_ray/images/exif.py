"""Orientation in an EXIF block: how to turn the stored pixels upright. Nothing else of EXIF is read.

It is not read by `PIL.Image.Exif`, which warns about damaged blocks in undamaged pictures, and also follows
XMP. As viewers do, a missing, damaged or impossible orientation counts as 1: upright as stored.
"""

import struct
import zlib

ORIENTATION_TAG = 0x0112
_TEXT_LIMIT = 1 << 20


def orientation_of_exif(payload: bytes) -> int:
    """Return the orientation, 1 to 8, of an EXIF block of JPEG, PNG, WEBP or AVIF, with or without its `Exif` mark."""
    while payload.startswith(b"Exif\0\0"):
        payload = payload[6:]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(payload[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", payload, 4)
        (count,) = struct.unpack_from(order + "H", payload, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", payload, entry)
            if tag == ORIENTATION_TAG:
                letter = {1: "B", 3: "H", 4: "I"}.get(kind, "H")
                return valid_orientation(struct.unpack_from(order + letter, payload, entry + 8)[0])
    except struct.error:
        return 1
    return 1


def valid_orientation(value: object) -> int:
    """Return the value of an orientation tag if it is one of the eight, else 1."""
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def exif_of_png_text(text: bytes, *, packed: bool) -> bytes:
    """Return the EXIF block in a PNG text of ImageMagick: a newline, the name, the length, then lines of hex."""
    try:
        if packed:
            text = zlib.decompressobj().decompress(text[1:], _TEXT_LIMIT)
        return bytes.fromhex("".join(text.decode("ascii").split("\n")[3:]))
    except (ValueError, zlib.error):
        return b""  # damaged metadata is no damage to the picture
