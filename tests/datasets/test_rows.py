"""From files to rows: the picture's size, the truth beside it, and the reason where there is no row."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsss_ray.classes import ClassSet
from wsss_ray.datasets.items import Item, Listing, TruthFile, TruthInstances
from wsss_ray.datasets.rows import Fetched, Rejected, RowMaker, RowRules
from wsss_ray.images.label_png import decode_label
from wsss_ray.storage.storage import Storage

VOC = ClassSet.load("voc")
MANY = ClassSet.from_names([f"class {number}" for number in range(300)])


def make_row(root: Path, item: Item, *, class_set: ClassSet = VOC, **rules: Any) -> dict[str, Any] | Rejected:
    storage = Storage(str(root))
    options = {"exif": "ignore", "max_pixels": 10_000, "max_file_bytes": 100_000, "order": "area", "crowd": "ignore"}
    listing = Listing(items=(item,), images=storage, truths=storage, exif="ignore")
    maker = RowMaker(listing, class_set, RowRules(**{**options, **rules}))
    fetched = maker.fetch(item)
    return maker.make(item, fetched) if isinstance(fetched, Fetched) else fetched


def add_file(root: Path, name: str, data: bytes) -> int:
    (root / name).write_bytes(data)
    return len(data)


def add_image(root: Path, name: str, height: int = 4, width: int = 6, *, orientation: int = 1, **save: Any) -> int:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (width, height), (200, 10, 10)).save(root / name, exif=exif, **save)
    return (root / name).stat().st_size


def png(array: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    return stream.getvalue()


def item_of(root: Path, name: str, *, truth: Any = None, tags: tuple[str, ...] | None = ("dog",)) -> Item:
    path = root / name
    return Item(image_id="a", path=name, size=path.stat().st_size if path.exists() else None, tags=tags, truth=truth)


def test_a_row_keeps_the_original_bytes(tmp_path: Path) -> None:
    add_image(tmp_path, "a.jpg")
    row = make_row(tmp_path, item_of(tmp_path, "a.jpg"))
    assert row == {
        "image_id": "a",
        "source": "a.jpg",
        "image": (tmp_path / "a.jpg").read_bytes(),
        "height": 4,
        "width": 6,
        "tags": ["dog"],
        "truth": None,
    }


def test_truth_is_written_in_one_form(tmp_path: Path) -> None:
    add_image(tmp_path, "a.png")
    label = np.zeros((4, 6), np.uint8)
    label[1, 2], label[3, 5] = 12, 255
    size = add_file(tmp_path, "t.png", png(label))
    row = make_row(tmp_path, item_of(tmp_path, "a.png", truth=TruthFile(path="t.png", size=size)))
    assert isinstance(row, dict)
    np.testing.assert_array_equal(decode_label(row["truth"]), label)
    image = Image.open(io.BytesIO(row["truth"]))
    assert image.mode == "P"
    assert image.getpalette() == list(VOC.palette())
    row = make_row(tmp_path, item_of(tmp_path, "a.png", truth=TruthFile(path="t.png", size=size)), class_set=MANY)
    assert isinstance(row, dict)
    assert decode_label(row["truth"]).dtype == np.uint16


def test_tags_come_from_the_mask_where_nothing_else_gives_them(tmp_path: Path) -> None:
    add_image(tmp_path, "a.png")
    label = np.zeros((4, 6), np.uint8)
    label[0], label[1], label[2] = 15, 255, 1
    size = add_file(tmp_path, "t.png", png(label))
    row = make_row(tmp_path, item_of(tmp_path, "a.png", truth=TruthFile(path="t.png", size=size), tags=None))
    assert isinstance(row, dict)
    assert row["tags"] == ["aeroplane", "person"]
    rejected = make_row(tmp_path, item_of(tmp_path, "a.png", tags=None))
    assert rejected == Rejected(source="a.png", stage="truth", reason="no mask: the tags are to be read from it")


# Which (row, column) of the stored 4 x 6 picture ends at the top left of the upright one.
TOP_LEFT = {1: (0, 0), 2: (0, 5), 3: (3, 5), 4: (3, 0), 5: (0, 0), 6: (3, 0), 7: (3, 5), 8: (0, 5)}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "instances"])
def test_truth_turns_with_the_picture(tmp_path: Path, orientation: int, kind: str) -> None:
    add_image(tmp_path, "a.jpg", orientation=orientation)
    row, column = TOP_LEFT[orientation]
    stored = np.zeros((4, 6), np.uint8)
    stored[row, column] = 12
    truth: Any
    if kind == "png":
        truth = TruthFile(path="t.png", size=add_file(tmp_path, "t.png", png(stored)))
    else:
        pixel = [[column, row, column + 1, row, column + 1, row + 1, column, row + 1]]
        truth = TruthInstances(annotations=json.dumps([[12, 0, pixel]]).encode(), height=4, width=6)
    item = item_of(tmp_path, "a.jpg", truth=truth)
    upright = make_row(tmp_path, item, exif="apply")
    assert isinstance(upright, dict)
    shape = (4, 6) if orientation < 5 else (6, 4)
    label = decode_label(upright["truth"])
    assert label.shape == (upright["height"], upright["width"]) == shape
    assert np.argwhere(label == 12).tolist() == [[0, 0]]
    as_stored = make_row(tmp_path, item, exif="ignore")
    assert isinstance(as_stored, dict)
    assert (as_stored["height"], as_stored["width"]) == (4, 6)
    np.testing.assert_array_equal(decode_label(as_stored["truth"]), stored)


@pytest.mark.parametrize(
    ("truth", "reason"),
    [
        (png(np.zeros((6, 4), np.uint8)), "wrong size: 4 x 6, its image is 6 x 4"),
        (png(np.full((4, 6), 21, np.uint8)), "unknown ids: 21"),
        (png(np.full((4, 6, 3), 77, np.uint8)), "unknown color"),
        (png(np.zeros((4, 6), np.uint8), "JPEG"), "not a label PNG: JPEG"),
        (png(np.zeros((400, 600), np.uint8)), "too many pixels"),
        (b"<html></html>", "not an image"),
    ],
)
def test_truth_that_cannot_be_used_rejects_the_image(tmp_path: Path, truth: bytes, reason: str) -> None:
    add_image(tmp_path, "a.png")
    size = add_file(tmp_path, "t.png", truth)
    rejected = make_row(tmp_path, item_of(tmp_path, "a.png", truth=TruthFile(path="t.png", size=size)))
    assert isinstance(rejected, Rejected)
    assert rejected.stage == "truth"
    assert rejected.reason.startswith(reason)


def test_other_truth_that_cannot_be_used(tmp_path: Path) -> None:
    add_image(tmp_path, "a.png")
    cases = [
        (TruthFile(path="t.png", size=None), "absent: no such file (t.png)"),
        (TruthFile(path="t.png", size=100_001), "too large: 100001 bytes"),
        (TruthInstances(annotations=b"[]", height=6, width=4), "wrong size: the annotations are for 4 x 6"),
        (TruthInstances(annotations=b"[[12,0,[[0,0,1e9,0,1,1]]]]", height=4, width=6), "bad segmentation"),
    ]
    for truth, reason in cases:
        rejected = make_row(tmp_path, item_of(tmp_path, "a.png", truth=truth))
        assert isinstance(rejected, Rejected)
        assert (rejected.stage, rejected.reason[: len(reason)]) == ("truth", reason)


def test_images_that_cannot_be_used(tmp_path: Path) -> None:
    add_image(tmp_path, "big.png", 101, 100)
    add_image(tmp_path, "cut.png", 50, 50)
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-40])
    add_file(tmp_path, "heavy.jpg", b"x" * 100_001)
    (tmp_path / "out.jpg").symlink_to("/etc/hostname")
    for name, stage, reason in (
        ("gone.jpg", "read", "absent"),
        ("heavy.jpg", "read", "too large"),
        ("out.jpg", "read", "outside the input"),
        ("big.png", "decode", "too many pixels"),
        ("cut.png", "decode", "truncated"),
    ):
        rejected = make_row(tmp_path, item_of(tmp_path, name))
        assert isinstance(rejected, Rejected)
        assert (rejected.source, rejected.stage, rejected.reason.partition(":")[0]) == (name, stage, reason)


def test_a_name_that_is_no_text_has_a_source(tmp_path: Path) -> None:
    name = b"caf\xe9.png"
    add_image(tmp_path, "a.png")
    target = Path(str(tmp_path).encode().decode()) / name.decode("utf-8", "surrogateescape")
    (tmp_path / "a.png").rename(target)
    row = make_row(tmp_path, item_of(tmp_path, target.name))
    assert isinstance(row, dict)
    assert row["source"] == "caf\\xe9.png"
