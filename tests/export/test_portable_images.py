"""Images of an export: every reader, whether it obeys EXIF or not, must see the pixels that the label belongs to."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from wsss_ray.export.portable_images import portable_image
from wsss_ray.images.decoding import ExifRule, decode_image
from wsss_ray.images.header import ImageError

RGB = np.random.default_rng(0).integers(0, 255, (4, 6, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)


def encoded(file_format: str, orientation: int | None, **options: object) -> bytes:
    image = Image.fromarray(RGB)
    if orientation is not None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        exif[0x010E] = "a picture"
        options["exif"] = exif
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def readings(data: bytes) -> list[np.ndarray]:
    """What readers of different habits make of an encoded image."""
    image = Image.open(io.BytesIO(data))
    buffer = np.frombuffer(data, np.uint8)
    return [
        np.asarray(image.convert("RGB")),
        np.asarray(ImageOps.exif_transpose(image).convert("RGB")),
        cv2.imdecode(buffer, cv2.IMREAD_COLOR)[:, :, ::-1],
        cv2.imdecode(buffer, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)[:, :, ::-1],
    ]


@pytest.mark.parametrize("exif", ["apply", "ignore"])
@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
@pytest.mark.parametrize(("file_format", "suffix"), [("JPEG", ".jpg"), ("PNG", ".png"), ("WEBP", ".webp")])
def test_every_reader_sees_what_was_labelled(
    file_format: str, suffix: str, orientation: int | None, exif: ExifRule
) -> None:
    options = {"JPEG": {"quality": 90}, "PNG": {}, "WEBP": {"lossless": True}}[file_format]
    data = encoded(file_format, orientation, **options)
    picture = portable_image(data, exif=exif)
    labelled = decode_image(data, exif=exif)
    again = file_format == "JPEG" and exif == "apply"
    for reading in readings(picture.data):
        np.testing.assert_allclose(reading.astype(int), labelled.astype(int), atol=20 if again else 1)
    if orientation in (None, 1):
        assert picture.data == data
        assert picture.change is None
        assert picture.suffix == suffix
    else:
        assert picture.change == ("turned upright" if exif == "apply" else "orientation removed")
        assert picture.suffix == (".jpg" if file_format == "JPEG" else ".png")
    assert picture == portable_image(data, exif=exif)


def test_a_jpeg_that_is_not_to_be_turned_keeps_its_scans() -> None:
    profile = b"a colour profile" * 10
    data = encoded("JPEG", 6, icc_profile=profile, quality=90)
    picture = portable_image(data, exif="ignore")
    assert data.endswith(picture.data[picture.data.index(b"\xff\xda") :])
    image = Image.open(io.BytesIO(picture.data))
    assert image.info["icc_profile"] == profile
    assert dict(image.getexif()) == {}
    np.testing.assert_array_equal(np.asarray(image), decode_image(data, exif="ignore"))


@pytest.mark.parametrize("exif", ["apply", "ignore"])
def test_an_orientation_in_xmp_turns_nothing(exif: ExifRule) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    for file_format in ("JPEG", "PNG"):
        stream = io.BytesIO()
        image = Image.fromarray(RGB)
        if file_format == "JPEG":
            image.save(stream, "JPEG", xmp=xmp)
        else:
            info = PngInfo()
            info.add_itxt("XML:com.adobe.xmp", xmp.decode())
            image.save(stream, "PNG", pnginfo=info)
        data = stream.getvalue()
        assert ImageOps.exif_transpose(Image.open(io.BytesIO(data))).size == (32, 48), "Pillow obeys it"
        picture = portable_image(data, exif=exif)
        assert picture.change == "orientation removed"
        for reading in readings(picture.data):
            np.testing.assert_array_equal(reading, decode_image(data, exif=exif))


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(ImageError, match="not an image"):
        portable_image(b"<html>not found</html>", exif="ignore")


def test_awkward_files_read_as_they_were_labelled(shared: Path) -> None:
    seen = set()
    for path in sorted((shared / "data" / "edge").rglob("*")):
        data = path.read_bytes() if path.is_file() and path.stat().st_size < 3_000_000 else b""
        for exif in ("apply", "ignore"):
            try:
                labelled = decode_image(data, exif=exif, max_pixels=4_000_000)
            except ImageError:
                continue
            picture = portable_image(data, exif=exif)
            assert decode_image(picture.data, exif=exif).shape == labelled.shape, path
            image = Image.open(io.BytesIO(picture.data))
            assert f".{image.format.lower().replace('jpeg', 'jpg').replace('mpo', 'jpg').replace('tiff', 'tif')}" == (
                picture.suffix
            ), path
            if picture.change is not None:
                seen.add(picture.change)
                assert ImageOps.exif_transpose(image).size == image.size == labelled.shape[1::-1], path
                difference = np.abs(np.asarray(image.convert("RGB")).astype(int) - labelled)
                assert difference.mean() < 3, path
    assert seen == {"turned upright", "orientation removed"}
