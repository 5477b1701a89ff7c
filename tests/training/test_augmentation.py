"""Resizing, padding, cropping and mirroring, by hand."""

from dataclasses import dataclass
from typing import cast

import numpy as np
import pytest
from PIL import Image

from wsss_ray.training.augmentation import Augmentation, scaled_size

IGNORE = 255


@dataclass
class Drawn:
    """A random stream that draws given numbers: scale, down, across, mirror."""

    numbers: tuple[float, float, float, float]

    def random(self, count: int) -> tuple[float, ...]:
        assert count == 4
        return self.numbers


def augment(
    image: np.ndarray,
    label: np.ndarray,
    *,
    crop: int,
    scales: tuple[float, ...] = (1.0,),
    drawn: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.9),
    flip: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    settings = Augmentation(crop=crop, scales=scales, flip=flip, fill=(1, 2, 3))
    return settings(image, label, cast("np.random.Generator", Drawn(drawn)), ignore=IGNORE)


def picture(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    label = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    return np.stack([label, label + 50, label + 100], axis=-1), label


def test_a_small_image_is_padded_at_the_bottom_and_right() -> None:
    image, label = picture(2, 3)
    got, got_label = augment(image, label, crop=4)
    assert got_label.tolist() == [[0, 1, 2, 255], [3, 4, 5, 255], [255] * 4, [255] * 4]
    assert got[:2, :3].tolist() == image.tolist()
    assert (got[got_label == IGNORE] == (1, 2, 3)).all()


@pytest.mark.parametrize(
    ("down", "across", "top", "left"), [(0.0, 0.0, 0, 0), (0.999, 0.999, 3, 4), (0.49, 0.2, 1, 1), (0.5, 0.0, 2, 0)]
)
def test_a_crop_anywhere_in_a_large_image(down: float, across: float, top: int, left: int) -> None:
    image, label = picture(5, 6)  # 4 rows and 5 columns to begin at
    got, got_label = augment(image, label, crop=2, drawn=(0.0, down, across, 0.9))
    assert got_label.tolist() == label[top : top + 2, left : left + 2].tolist()
    assert got.tolist() == image[top : top + 2, left : left + 2].tolist()


def test_mirrored_together_padding_included() -> None:
    image, label = picture(1, 2)
    got, got_label = augment(image, label, crop=3, drawn=(0.0, 0.0, 0.0, 0.4))
    assert got_label[0].tolist() == [255, 1, 0]
    assert got[0].tolist() == [[1, 2, 3], image[0, 1].tolist(), image[0, 0].tolist()]
    unmirrored = augment(image, label, crop=3, drawn=(0.0, 0.0, 0.0, 0.4), flip=False)[1]
    assert unmirrored[0].tolist() == [0, 1, 255]


@pytest.mark.parametrize(("number", "factor"), [(0.0, 0.5), (0.34, 1.0), (0.99, 2.0)])
def test_each_scale_is_drawn(number: float, factor: float) -> None:
    label = np.zeros((6, 8), np.uint8)
    got = augment(np.zeros((6, 8, 3), np.uint8), label, crop=20, scales=(0.5, 1.0, 2.0), drawn=(number, 0, 0, 0.9))[1]
    assert int((got == 0).sum()) == int(6 * factor) * int(8 * factor)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_labels_are_resized_without_new_ids(dtype: type) -> None:
    label = np.array([[1, 2], [3, 200]], dtype) * (100 if dtype is np.uint16 else 1)
    image = np.zeros((2, 2, 3), np.uint8)
    enlarged = augment(image, label, crop=4, scales=(2.0,))[1]
    assert enlarged.dtype == dtype
    assert enlarged.tolist() == label.repeat(2, axis=0).repeat(2, axis=1).tolist()
    reduced = augment(np.zeros((4, 4, 3), np.uint8), enlarged, crop=2, scales=(0.5,))[1]
    assert reduced.tolist() == label.tolist()


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.25, 1.5])
def test_a_crop_shows_a_part_of_the_resized_image(scale: float) -> None:
    random = np.random.default_rng(0)
    image = np.asarray(Image.fromarray(random.integers(0, 256, (9, 12, 3), np.uint8)).resize((119, 89)))
    label = random.integers(0, 20, (9, 12), np.uint8).repeat(10, axis=0).repeat(10, axis=1)[:89, :119]
    height, width = scaled_size(label.shape, scale)
    pixels = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    ids = np.asarray(Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST))
    got, got_label = augment(image, label, crop=32, scales=(scale,), drawn=(0.0, 0.5, 0.25, 0.9))
    top, left = int(0.5 * (height - 31)), int(0.25 * (width - 31))
    inside = slice(2, -2)
    shown = pixels[top : top + 32, left : left + 32].astype(int)[inside, inside]
    assert np.abs(got[inside, inside] - shown).max() <= 3
    assert np.array_equal(got_label, ids[top : top + 32, left : left + 32])


def test_a_thin_image_never_vanishes() -> None:
    assert scaled_size((1, 9), 0.5) == (1, 4)
