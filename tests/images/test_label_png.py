"""Label PNGs: the ids are kept exactly, and everything that is no label is refused with a reason."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from wsss_ray.images.header import ImageError
from wsss_ray.images.label_png import check_truth, colors_to_ids, decode_label, decode_truth, encode_label, orient_label

PALETTE = bytes(value * factor % 256 for value in range(256) for factor in (1, 3, 7))


def png(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def raw_png(rows: list[bytes], width: int, depth: int, color_type: int, palette: bytes = b"") -> bytes:
    """A PNG written by hand, for bit depths that Pillow does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, color_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    plte = chunk(b"PLTE", palette) if palette else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + plte + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("palette", [PALETTE, None])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (16, 16), (1, 700)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_labels_come_back(palette: bytes | None, shape: tuple[int, int], dtype: type) -> None:
    top = 255 if dtype == np.uint8 else 65535
    label = np.linspace(0, top, shape[0] * shape[1]).astype(dtype).reshape(shape)
    data = encode_label(label, palette=palette)
    decoded = decode_label(data)
    np.testing.assert_array_equal(decoded, label)
    assert decoded.dtype == dtype
    assert data == encode_label(label[::-1][::-1], palette=palette)
    image = Image.open(io.BytesIO(data))
    assert image.mode == ("I;16" if top == 65535 else "L" if palette is None else "P")
    if image.mode == "P":
        np.testing.assert_array_equal(
            np.asarray(image.convert("RGB")), np.frombuffer(PALETTE, np.uint8).reshape(-1, 3)[label]
        )


def test_a_small_label_keeps_its_whole_palette() -> None:
    image = Image.open(io.BytesIO(encode_label(np.zeros((2, 2), np.uint8), palette=PALETTE)))
    assert bytes(image.getpalette() or ()) == PALETTE


@pytest.mark.parametrize(
    ("label", "palette", "reason"),
    [
        (np.zeros((2, 2), np.int64), None, "uint8 or uint16"),
        (np.zeros((2, 2, 3), np.uint8), None, "uint8 or uint16"),
        (np.zeros((0, 2), np.uint8), None, "uint8 or uint16"),
        (np.zeros((2, 2), np.uint8), b"\0" * 63, "768"),
    ],
)
def test_what_is_no_label_map_is_not_encoded(label: np.ndarray, palette: bytes | None, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        encode_label(label, palette=palette)


@pytest.mark.parametrize("color_type", [0, 3])
@pytest.mark.parametrize(
    ("depth", "row", "ids"),
    [(1, b"\xa0", [1, 0, 1]), (2, b"\xd8", [3, 1, 2]), (4, b"\xf0\x70", [15, 0, 7]), (8, b"\xff\x00\x07", [255, 0, 7])],
)
def test_shallow_pngs_give_the_stored_numbers(color_type: int, depth: int, row: bytes, ids: list[int]) -> None:
    data = raw_png([row, row], 3, depth, color_type, PALETTE if color_type == 3 else b"")
    label = decode_label(data)
    assert label.dtype == np.uint8
    assert label.tolist() == [ids, ids]


def test_transparency_and_interlace_do_not_matter() -> None:
    label = np.arange(48, dtype=np.uint8).reshape(6, 8)
    image = Image.fromarray(label)
    image.putpalette(PALETTE)
    np.testing.assert_array_equal(decode_label(png(image, transparency=3)), label)
    np.testing.assert_array_equal(decode_label(png(Image.fromarray(label), transparency=3)), label)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colors_are_no_ids(mode: str) -> None:
    with pytest.raises(ImageError, match=r"not ids.*save the class ids"):
        decode_label(png(Image.new(mode, (3, 2))))


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF"])
def test_only_png_is_read(file_format: str) -> None:
    stream = io.BytesIO()
    Image.new("L", (8, 8), 3).save(stream, file_format)
    with pytest.raises(ImageError, match=rf"not a label PNG: {file_format}.*save the class ids"):
        decode_label(stream.getvalue())


def test_damaged_and_huge_labels_are_refused() -> None:
    data = encode_label(np.arange(600, dtype=np.uint16).reshape(20, 30), palette=None)
    with pytest.raises(ImageError, match="truncated"):
        decode_label(data[:-20])
    flipped = bytearray(data)
    flipped[data.index(b"IDAT") + 30] ^= 4
    with pytest.raises(ImageError, match="checksum"):
        decode_label(bytes(flipped))
    with pytest.raises(ImageError, match="too many pixels"):
        decode_label(data, max_pixels=599)
    assert decode_label(data, max_pixels=600).size == 600


@pytest.mark.parametrize("orientation", range(1, 9))
def test_labels_turn_as_pictures_do(orientation: int) -> None:
    label = np.arange(6, dtype=np.uint8).reshape(2, 3)
    image = Image.fromarray(label)
    image.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(orient_label(label, orientation), np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize("orientation", [0, 9])
def test_there_are_eight_orientations(orientation: int) -> None:
    with pytest.raises(ValueError, match="1 to 8"):
        orient_label(np.zeros((2, 2), np.uint8), orientation)


def test_truth_is_checked() -> None:
    label = np.array([[0, 1, 255], [2, 2, 9]], dtype=np.uint8)
    check_truth(label, (2, 3), {0, 1, 2, 9}, 255)
    with pytest.raises(ImageError, match=r"unknown ids: 9, first at row 1, column 2"):
        check_truth(label, (2, 3), range(3), 255)
    with pytest.raises(ImageError, match=r"unknown ids: 2 and 2 more"):
        check_truth(label, (2, 3), [0, 1], 254)
    with pytest.raises(ImageError, match=r"wrong size: 3 x 2, its image is 2 x 3"):
        check_truth(label, (3, 2), range(10), 255)


def test_truth_in_palette_colors_is_translated() -> None:
    palette = bytes([0, 0, 0, 128, 0, 0, 0, 128, 0, 0, 0, 0]) + b"\x01\x02\x03" * 252
    rgb = np.array([[[0, 0, 0], [128, 0, 0]], [[0, 128, 0], [1, 2, 3]]], dtype=np.uint8)
    assert colors_to_ids(rgb, palette).tolist() == [[0, 1], [2, 4]]
    data = png(Image.fromarray(rgb))
    assert decode_truth(data, size=(2, 2), allowed_ids=range(5), ignore_id=255, palette=palette).tolist() == [
        [0, 1],
        [2, 4],
    ]
    with pytest.raises(ImageError, match="unknown ids: 4"):
        decode_truth(data, size=(2, 2), allowed_ids=range(3), ignore_id=255, palette=palette)
    with pytest.raises(ImageError, match="not ids"):
        decode_truth(data, size=(2, 2), allowed_ids=range(5), ignore_id=255)
    rgb[1, 0, 2] = 1
    with pytest.raises(ImageError, match=r"unknown color: \(0, 128, 1\) at row 1, column 0"):
        decode_truth(png(Image.fromarray(rgb)), size=(2, 2), allowed_ids=range(5), ignore_id=255, palette=palette)
