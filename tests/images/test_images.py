"""Encoded files to RGB pixels: every mode, every orientation, limits, and damage of any kind."""

import io
import json
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from wsss_ray.images.decoding import decode_image, exif_orientation, read_size, to_rgb
from wsss_ray.images.header import ImageError

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")
EXACT = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}, "BMP": {}}


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def photo(height: int = 24, width: int = 40) -> Image.Image:
    """Smooth colors, different in every corner."""
    down, across = np.mgrid[0:height, 0:width] / [[[height]], [[width]]]
    return Image.fromarray((np.stack([down, across, 1 - down * across], -1) * 255).astype(np.uint8))


def oriented(image: Image.Image, file_format: str, orientation: int, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, file_format, exif=exif, **options)


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 77, (77, 77, 77)),
        ("LA", (77, 0), (77, 77, 77)),
        ("La", (40, 128), (80, 80, 80)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("RGBX", (1, 2, 3, 4), (1, 2, 3)),
        ("RGBA", (1, 2, 3, 0), (1, 2, 3)),
        ("RGBa", (20, 40, 60, 128), (40, 80, 120)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
        ("YCbCr", (128, 128, 128), (128, 128, 128)),
        ("LAB", (255, 128, 128), (255, 255, 255)),
        ("HSV", (85, 255, 255), (0, 255, 0)),
        ("I;16", 0x7FFF, (127, 127, 127)),
        ("I;16L", 0xFFFF, (255, 255, 255)),
        ("I;16B", 0x1234, (0x12, 0x12, 0x12)),
        ("I;16N", 0x1234, (0x12, 0x12, 0x12)),
        ("I", 200, (200, 200, 200)),
        ("I", 257 * 200, (200, 200, 200)),
        ("I", 2**31 - 1, (255, 255, 255)),
        ("I", -5, (0, 0, 0)),
        ("F", 0.2, (51, 51, 51)),
        ("F", 51.2, (51, 51, 51)),
        ("F", 51.0 * 257, (51, 51, 51)),
        ("F", -1.0, (0, 0, 0)),
    ],
)
def test_every_mode_becomes_rgb(mode: str, color: Any, expected: tuple[int, int, int]) -> None:
    pixels = to_rgb(Image.new(mode, (3, 2), color))
    assert pixels.shape == (2, 3, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(
        pixels, np.broadcast_to(expected, (2, 3, 3)), atol=1 if mode in {"LAB", "HSV", "La", "RGBa"} else 0
    )


@pytest.mark.parametrize("mode", ["P", "PA"])
@pytest.mark.parametrize("transparency", [None, 1, b"\x80\x00\xff"])
def test_palettes_become_rgb(mode: str, transparency: int | bytes | None) -> None:
    image = Image.new("P", (2, 1))
    image.putdata([1, 2])
    image.putpalette([9, 9, 9, 10, 20, 30, 40, 50, 60])
    if transparency is not None:
        image.info["transparency"] = transparency
    if mode == "PA":
        image = image.convert("PA")
    assert to_rgb(image).tolist() == [[[10, 20, 30], [40, 50, 60]]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e12])
def test_floats_without_a_white_are_refused(value: float) -> None:
    data = encoded(Image.new("F", (3, 2), value), "TIFF")
    with pytest.raises(ImageError, match="unsupported picture"):
        decode_image(data, exif="apply")


@pytest.mark.parametrize(
    ("mode", "file_format"),
    [
        *[(mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")],
        *[(mode, "TIFF") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F")],
        *[(mode, "JPEG") for mode in ("L", "RGB", "CMYK", "YCbCr")],
        *[(mode, "WEBP") for mode in ("RGB", "RGBA")],
        *[(mode, "GIF") for mode in ("L", "P", "RGB")],
        *[(mode, "BMP") for mode in ("1", "L", "P", "RGB")],
        *[(mode, "AVIF") for mode in ("RGB", "RGBA", "L")],
    ],
)
def test_modes_in_files(mode: str, file_format: str) -> None:
    source = photo()
    if mode == "I;16":
        image = Image.fromarray(np.asarray(source.convert("L")).astype(np.uint16) * 257)
    elif mode == "LAB":
        image = source.convert("LAB")
    else:
        image = source.convert(mode)
    data = encoded(image, file_format, **({"lossless": True} if file_format == "WEBP" else {}))
    expected = np.asarray(image.convert("L") if mode == "I;16" else image.convert("RGB"))
    if mode == "I;16":
        expected = np.repeat(np.asarray(source.convert("L"))[..., None], 3, 2)
    pixels = decode_image(data, exif="apply")
    assert pixels.shape == (24, 40, 3)
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    tolerance = 8 if file_format in {"JPEG", "AVIF", "GIF"} else 1 if mode == "F" else 0
    assert np.abs(pixels.astype(int) - expected).mean() <= tolerance


@pytest.mark.parametrize("file_format", ["JPEG", *EXACT, "AVIF", "GIF"])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (20, 800)])
def test_odd_shapes(file_format: str, size: tuple[int, int]) -> None:
    data = encoded(photo(*size), file_format)
    assert decode_image(data, exif="apply").shape == (*size, 3)
    assert read_size(data, exif="apply") == size


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"keep_rgb": True}, {"restart": 1}])
def test_jpegs_are_read_as_pillow_reads_them(options: dict[str, Any]) -> None:
    if options.pop("restart", None):
        options["restart_marker_blocks"] = 2
    for image in (photo(61, 83), photo(61, 83).convert("L")):
        data = encoded(image, "JPEG", **options)
        np.testing.assert_array_equal(
            decode_image(data, exif="apply"), np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_orientation(file_format: str, orientation: int) -> None:
    data = oriented(photo(), file_format, orientation, **EXACT.get(file_format, {}))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    size = (40, 24) if orientation >= 5 else (24, 40)
    assert upright.shape == (*size, 3)
    assert exif_orientation(data) == orientation
    assert read_size(data, exif="apply") == size
    assert read_size(data, exif="ignore") == (24, 40)
    np.testing.assert_array_equal(decode_image(data, exif="apply"), upright)
    stored = decode_image(data, exif="ignore").astype(int)
    assert np.abs(stored - np.asarray(photo())).mean() < (1e-9 if file_format in EXACT else 6)


def test_orientation_after_the_pixels_of_a_png_and_in_its_text() -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    exif = Image.Exif()
    exif[0x0112] = 6
    block = exif.tobytes()
    text = f"\nexif\n    {len(block)}\n{block.hex()[:40]}\n{block.hex()[40:]}\n".encode()
    data = encoded(photo(), "PNG")
    for extra in (
        chunk(b"eXIf", block.removeprefix(b"Exif\0\0")),
        chunk(b"tEXt", b"Raw profile type exif\0" + text),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)),
    ):
        for position in (33, len(data) - 12):
            changed = data[:position] + extra + data[position:]
            assert exif_orientation(changed) == 6
            assert decode_image(changed, exif="apply").shape == (40, 24, 3)
            assert np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(changed)))).shape == (40, 24, 3)


def exif_block(order: str, tag: int, kind: int, value: bytes) -> bytes:
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "IHHHI", 8, 1, tag, kind, 1) + value + b"\0\0\0\0"


@pytest.mark.parametrize(
    ("block", "orientation"),
    [
        (exif_block("<", 0x0112, 3, b"\x06\0\0\0"), 6),
        (exif_block(">", 0x0112, 3, b"\0\x08\0\0"), 8),
        (exif_block(">", 0x0112, 4, b"\0\0\0\x03"), 3),
        (b"Exif\0\0" + exif_block("<", 0x0112, 3, b"\x06\0\0\0"), 6),
        (exif_block("<", 0x0112, 3, b"\x09\0\0\0"), 1),
        (exif_block("<", 0x0112, 3, b"\x00\0\0\0"), 1),
        (exif_block("<", 0x0113, 3, b"\x06\0\0\0"), 1),
        (exif_block("<", 0x0112, 3, b"\x06\0\0\0")[:16], 1),
        (b"II*\0\xff\xff\xff\x7f", 1),
        (b"II*\0", 1),
        (b"rubbish", 1),
        (b"", 1),
    ],
)
def test_damaged_exif_is_no_damage_to_the_picture(block: bytes, orientation: int) -> None:
    segment = b"Exif\0\0" + block
    jpeg = encoded(photo(), "JPEG")
    data = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]
    assert exif_orientation(data) == orientation
    assert decode_image(data, exif="apply").shape == ((40, 24, 3) if orientation >= 5 else (24, 40, 3))


@pytest.mark.parametrize("file_format", FORMATS)
def test_pixel_limit(file_format: str) -> None:
    data = encoded(photo(), file_format)
    with pytest.raises(ImageError, match=r"^too many pixels: 40 x 24 .* limit of 959"):
        decode_image(data, exif="apply", max_pixels=959)
    with pytest.raises(ImageError, match="too many pixels"):
        read_size(data, exif="apply", max_pixels=959)
    assert decode_image(data, exif="apply", max_pixels=960).shape == (24, 40, 3)


@pytest.mark.parametrize("file_format", [name for name in FORMATS if name != "WEBP"])
def test_pillows_own_limit_does_not_interfere(file_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(photo(), file_format)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert decode_image(data, exif="apply").shape == (24, 40, 3)


def test_huge_claims_take_no_memory() -> None:
    """In a process of its own, so that its peak memory is measured alone."""
    side = 10_001
    files = {
        "png": encoded(Image.new("1", (side, side)), "PNG"),
        "webp": encoded(Image.new("L", (side, side)), "WEBP", lossless=True, quality=0, method=0),
        "gif": b"GIF89a" + struct.pack("<HH", side, side) + b"\x80\0\0" + b"\0" * 6 + b"!\xf9\x04\x09\0\0\0\0"
        b"," + struct.pack("<4H", 0, 0, side, side) + b"\0\x02\x02L\x01\0;",
        "gif of a small screen": b"GIF89a\1\0\1\0\x80\0\0" + b"\0" * 6 + b"!\xf9\x04\x09\0\0\0\0"
        b"," + struct.pack("<4H", 0, 0, side, side) + b"\0\x02\x02L\x01\0;",
    }
    script = """
import json, resource, sys
from wsss_ray.images.decoding import ImageError, decode_image
reasons = []
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for text in json.load(sys.stdin):
    try:
        decode_image(bytes.fromhex(text), exif="apply")
    except ImageError as error:
        reasons.append(str(error).partition(":")[0])
print(json.dumps([reasons, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024]))
"""
    run = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps([data.hex() for data in files.values()]),
        capture_output=True,
        text=True,
        check=True,
    )
    reasons, mebibytes = json.loads(run.stdout)
    assert reasons == ["too many pixels"] * len(files)
    assert mebibytes < 20


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
def test_the_first_frame_stands_for_the_file(file_format: str) -> None:
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(decode_image(data, exif="apply").mean((0, 1)), [255, 0, 0], atol=4)


@pytest.mark.parametrize("file_format", ["ICO", "JPEG2000", "PDF", "PPM"])
def test_other_formats_are_refused_by_name(file_format: str) -> None:
    with pytest.raises(ImageError, match=r"^(unsupported format|not an image): .*JPEG, PNG") as caught:
        decode_image(encoded(photo(), file_format), exif="apply")
    assert str(caught.value).partition(":")[0] == ("not an image" if file_format == "PPM" else "unsupported format")


@pytest.mark.parametrize("file_format", FORMATS)
def test_half_a_file_is_refused(file_format: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, file_format)
    with pytest.raises(ImageError) as caught:
        decode_image(data[: len(data) // 2], exif="apply")
    assert str(caught.value).partition(":")[0] in {"truncated", "corrupt"}


def test_a_jpeg_with_wrong_codes_is_refused_although_decoders_go_on() -> None:
    data = bytearray(encoded(photo(200, 300), "JPEG", quality=95))
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(range(1, 41))
    Image.open(io.BytesIO(data)).load()
    with pytest.raises(ImageError, match=r"^corrupt: the JPEG"):
        decode_image(bytes(data), exif="apply")


@pytest.mark.parametrize("padding", [b"\0", b"\0\0"])
def test_padding_before_the_end_of_a_jpeg_is_accepted(padding: bytes) -> None:
    data = encoded(photo(), "JPEG")
    padded = data[:-2] + padding + data[-2:]
    np.testing.assert_array_equal(decode_image(padded, exif="apply"), decode_image(data, exif="apply"))


def with_scans(data: bytes, count: int) -> bytes:
    """A progressive JPEG whose last scan is there `count` times more."""
    start, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:end] + data[start:end] * count + data[end:]


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded() -> None:
    data = encoded(Image.new("RGB", (2000, 2000)), "JPEG", progressive=True)
    with pytest.raises(ImageError, match=r"^too many scans: a JPEG of this size may have 100"):
        read_size(with_scans(data, 3000), exif="apply")
    hidden = data[:2] + b"\xff\xfe\x00\x06\xff\xd9\xff\xda" + data[2:]  # an end and a scan in a comment are none
    with pytest.raises(ImageError, match=r"^too many scans"):
        decode_image(with_scans(hidden, 91), exif="apply")
    assert decode_image(with_scans(hidden, 90), exif="apply").shape == (2000, 2000, 3)


def test_scans_are_limited_by_their_pixels_but_never_below_what_cameras_write() -> None:
    data = encoded(Image.new("L", (10_000, 4_000)), "JPEG", progressive=True, quality=10)
    scans = data.count(b"\xff\xda")
    with pytest.raises(ImageError, match="may have 50"):
        read_size(with_scans(data, 51 - scans), exif="apply")
    assert read_size(with_scans(data, 50 - scans), exif="apply") == (4_000, 10_000)
    claimed = data.replace(struct.pack(">HH", 4_000, 10_000), struct.pack(">HH", 20_000, 20_000))
    with pytest.raises(ImageError, match="may have 20"):
        read_size(with_scans(claimed, 21 - scans), exif="apply", max_pixels=10**9)
    after = data + b"\xff\xda" * 200  # a film, as phones append it, is not part of the picture
    assert read_size(after, exif="apply") == (4_000, 10_000)


def test_one_flipped_bit_in_a_png_is_found() -> None:
    data = encoded(photo(), "PNG")
    position = data.index(b"IDAT") + 40
    with pytest.raises(ImageError, match="checksum"):
        decode_image(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :], exif="apply")


def test_text_bombs_are_refused() -> None:
    content = b"note\0\0" + zlib.compress(b"\0" * (1 << 24))
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    data = encoded(photo(), "PNG")
    for position in (33, len(data) - 12):
        with pytest.raises(ImageError, match=r"^text bomb"):
            decode_image(data[:position] + chunk + data[position:], exif="apply")


def flip(data: bytearray, generator: np.random.Generator) -> None:
    for position in generator.integers(0, len(data), generator.integers(1, 6)):
        data[position] ^= 1 << generator.integers(0, 8)


def cut(data: bytearray, generator: np.random.Generator) -> None:
    del data[generator.integers(0, len(data)) :]


def scramble_head(data: bytearray, generator: np.random.Generator) -> None:
    for position in generator.integers(4, min(80, len(data)), generator.integers(1, 6)):
        data[position] = generator.integers(0, 256)


def splice(data: bytearray, generator: np.random.Generator) -> None:
    start, end = sorted(generator.integers(0, len(data), 2))
    del data[start : min(end, start + 9)]


@pytest.mark.parametrize("damage", [flip, cut, scramble_head, splice])
@pytest.mark.parametrize("file_format", FORMATS)
def test_any_bytes_give_pixels_or_a_reason(
    file_format: str, damage: Callable[[bytearray, np.random.Generator], None]
) -> None:
    generator = np.random.default_rng(11)
    options = {"exif": oriented_exif()} if file_format not in {"BMP", "GIF"} else {}
    sound = encoded(photo(), file_format, **options)
    refused = 0
    for _ in range(60):
        data = bytearray(sound)
        damage(data, generator)
        try:
            size = read_size(bytes(data), exif="apply", max_pixels=200_000)
            pixels = decode_image(bytes(data), exif="apply", max_pixels=200_000)
        except ImageError:
            refused += 1
        else:
            assert pixels.shape == (*size, 3)
            assert pixels.dtype == np.uint8
    assert refused > 0 or file_format == "BMP"  # a BMP is all pixels: hardly anything in it can be wrong


def oriented_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif
