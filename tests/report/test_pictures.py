"""Thumbnails and overlays, read back by Pillow."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from wsss_ray.classes import ClassSet
from wsss_ray.report.pictures import Overlay, encode_photo, fit

CLASSES = ClassSet.from_names(["cat", "dog"])


@pytest.mark.parametrize(
    ("size", "longest", "fitted"),
    [
        ((375, 500), 256, (192, 256)),
        ((500, 375), 256, (256, 192)),
        ((10, 20), 256, (10, 20)),
        ((1, 9000), 100, (1, 100)),
    ],
)
def test_pictures_shrink_and_never_grow(size: tuple[int, int], longest: int, fitted: tuple[int, int]) -> None:
    assert fit(*size, longest) == fitted
    image = np.full((*size, 3), 200, np.uint8)
    assert Image.open(io.BytesIO(encode_photo(image, longest))).size == fitted[::-1]


def test_an_overlay_has_the_classes_colours_on_nothing() -> None:
    label = np.array([[0, 1, 1], [2, CLASSES.ignore_id, 7]], np.uint8)
    pixels = np.asarray(Image.open(io.BytesIO(Overlay(CLASSES).encode(label, 100))).convert("RGBA"))
    cat, dog = (CLASSES.by_name[name].color for name in ("cat", "dog"))
    assert pixels[0].tolist() == [[0, 0, 0, 0], [*cat, 255], [*cat, 255]]
    assert pixels[1].tolist() == [[*dog, 255], [224, 224, 192, 255], [0, 0, 0, 0]]


def test_a_smaller_overlay_takes_the_middle_pixels() -> None:
    label = np.kron(np.array([[0, 1], [2, 0]], np.uint8), np.ones((50, 50), np.uint8))
    pixels = np.asarray(Image.open(io.BytesIO(Overlay(CLASSES).encode(label, 10))).convert("RGBA"))
    assert pixels.shape == (10, 10, 4)
    assert (pixels[:5, :5, 3] == 0).all()
    assert (pixels[:5, 5:, :3] == CLASSES.by_name["cat"].color).all()
    assert (pixels[5:, :5, :3] == CLASSES.by_name["dog"].color).all()


def test_more_ids_than_a_palette_holds() -> None:
    classes = ClassSet.from_names([f"class {index}" for index in range(400)])
    label = np.arange(400, dtype=np.uint16).reshape(20, 20) + 1
    pixels = np.asarray(Image.open(io.BytesIO(Overlay(classes).encode(label, 20))).convert("RGBA"))
    assert pixels[19, 19].tolist() == [*classes.by_id[400].color, 255]
    assert (pixels[..., 3] == 255).all()
