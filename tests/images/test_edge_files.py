"""Ninety-two edge cases, each inspected: the right picture or the right reason.

`edge_expectations.json` has for each: `status`, `size` (height, width, upright), `mean` RGB, `orientation` where it is
not 1; `like` names a file that shows the same and `within` their mean difference; `reason` is how the reason begins;
`seen` says what a person sees and why the verdict is right; `truth` is the verdict on the file as the label of the
photo 2007_000676.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsss_ray.images.decoding import decode_image, exif_orientation, read_size
from wsss_ray.images.header import ImageError
from wsss_ray.images.label_png import decode_label, decode_truth, orient_label

EXPECTATIONS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "edge_expectations.json").read_text(encoding="utf-8")
)
PHOTO_SIZE = (375, 500)
VOC = "data/voc/VOCdevkit/VOC2012/SegmentationClass/2007_000676.png"


def test_the_table_has_every_file(shared: Path) -> None:
    listed = {entry["file"] for entry in json.loads((shared / "data/edge/manifest.json").read_text(encoding="utf-8"))}
    assert set(EXPECTATIONS) == listed
    assert len(listed) == 92


@pytest.mark.parametrize("name", EXPECTATIONS)
def test_the_picture_or_the_reason(shared: Path, name: str) -> None:
    expected = EXPECTATIONS[name]
    data = (shared / "data/edge" / name).read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if expected["status"] == "rejected":
            with pytest.raises(ImageError) as caught:
                decode_image(data, exif="apply")
            assert str(caught.value).startswith(expected["reason"])
            return
        pixels = decode_image(data, exif="apply")
        stored = decode_image(data, exif="ignore")
    assert pixels.dtype == np.uint8
    assert [*pixels.shape] == [*expected["size"], 3]
    assert read_size(data, exif="apply") == pixels.shape[:2]
    assert read_size(data, exif="ignore") == stored.shape[:2]
    assert exif_orientation(data) == expected.get("orientation", 1)
    np.testing.assert_array_equal(orient_label(stored, exif_orientation(data)), pixels)
    np.testing.assert_allclose(pixels.mean((0, 1)), expected["mean"], atol=1.5)


@pytest.mark.parametrize("name", [name for name, expected in EXPECTATIONS.items() if "like" in expected])
def test_it_shows_the_same_as_its_sibling_and_upright(shared: Path, name: str) -> None:
    pixels, sibling = (
        decode_image((shared / "data/edge" / file).read_bytes(), exif="apply").astype(np.int16)
        for file in (name, EXPECTATIONS[name]["like"])
    )
    within = EXPECTATIONS[name]["within"]
    assert np.abs(pixels - sibling).mean() <= within
    for orientation in range(2, 9):
        turned = orient_label(pixels, orientation)
        assert turned.shape != sibling.shape or np.abs(turned - sibling).mean() > within


@pytest.mark.parametrize("name", [name for name, expected in EXPECTATIONS.items() if "truth" in expected])
def test_masks_as_truth(shared: Path, name: str) -> None:
    expected = EXPECTATIONS[name]["truth"]
    data = (shared / "data/edge" / name).read_bytes()
    palette = bytes(Image.open(shared / VOC).getpalette() or ())

    def truth(palette: bytes | None = None) -> np.ndarray:
        return decode_truth(data, size=PHOTO_SIZE, allowed_ids=range(21), ignore_id=255, palette=palette)

    if "reason" in expected:
        with pytest.raises(ImageError) as caught:
            truth()
        assert str(caught.value).startswith(expected["reason"])
    if expected["status"] == "ok":
        label = truth(palette if expected.get("needs_palette") else None)
        assert np.unique(label).tolist() == expected["ids"]
        if len(expected["ids"]) > 1:
            np.testing.assert_array_equal(label, decode_label((shared / VOC).read_bytes()))
    else:
        with pytest.raises(ImageError):
            truth(palette)
