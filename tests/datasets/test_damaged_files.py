"""Every file that a source reads, damaged at random: it is still readable, or a ValueError names it."""

from __future__ import annotations

import io
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss_ray.classes import ClassSet
from wsss_ray.config import ShardConfig, StorageConfig
from wsss_ray.datasets.cls_labels import read_cls_labels
from wsss_ray.datasets.coco import CocoSource
from wsss_ray.datasets.folder import FolderSource
from wsss_ray.datasets.manifest import read_text
from wsss_ray.datasets.rows import Rejected, RowMaker, RowRules
from wsss_ray.datasets.voc_list import parse_split_list
from wsss_ray.datasets.voc_tags import read_xml_tags

VOC, COCO = ClassSet.load("voc"), ClassSet.load("coco")
IMAGES = [
    {"id": 9, "file_name": "a.jpg", "height": 4, "width": 6},
    {"id": 25, "file_name": "b.jpg", "height": 4, "width": 6},
]
ANNOTATIONS = [
    {"image_id": 9, "category_id": 18, "iscrowd": 0, "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]},
    {"image_id": 9, "category_id": 1, "iscrowd": 1, "segmentation": {"size": [4, 6], "counts": [24]}},
    {"image_id": 25, "category_id": 1, "segmentation": {"size": [4, 6], "counts": "0h00"}},
]
CATEGORIES = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
VALUES = [b"null", b"true", b"[]", b"{}", b"-1", b"1e400", b"NaN", b'"x"', b'""', b"9" * 30, b"9" * 5000, b'"\\ud800"']


def cls_labels() -> bytes:
    stream = io.BytesIO()
    content = {"a": np.ones(20, np.float32), "b": np.zeros(20, np.float32)}
    np.save(stream, content, allow_pickle=True)  # type: ignore[arg-type]
    return stream.getvalue()


def read_coco(path: Path) -> None:
    config = ShardConfig(input=str(path.parent), output="unused", source="coco", annotations=str(path))
    listing = CocoSource().list_images(config, COCO)
    rules = RowRules(exif="ignore", max_pixels=1000, max_file_bytes=10**5, order="area", crowd="include")
    maker = RowMaker(listing, COCO, rules)
    for item in listing.items:
        fetched = maker.fetch(item)
        if not isinstance(fetched, Rejected):
            maker.make(item, fetched)


def read_table(path: Path) -> None:
    FolderSource().list_images(ShardConfig(input=str(path.parent), output="unused", tags=str(path)), VOC)


FILES: dict[str, tuple[bytes, Callable[[Path], object]]] = {
    "instances.json": (
        json.dumps({"images": IMAGES, "categories": CATEGORIES, "annotations": ANNOTATIONS}).encode(),
        read_coco,
    ),
    "tags.csv": (b"file,tags\na.jpg,dog;person\nb.jpg,cat\n", read_table),
    "tags.jsonl": (b'{"file": "a.jpg", "tags": ["dog", "person"]}\n{"file": "b.jpg", "tags": []}\n', read_table),
    "a.xml": (
        b"<annotation><object><name>dog</name><difficult>0</difficult></object></annotation>",
        lambda path: read_xml_tags(path.read_bytes(), str(path)),
    ),
    "train.txt": (
        b"2007_000032 0 14\n2007_000033 3\n",
        lambda path: parse_split_list(read_text(str(path), StorageConfig(), what="split list"), str(path)),
    ),
    "cls_labels.npy": (cls_labels(), lambda path: read_cls_labels(path.read_bytes(), str(path))),
    "pets.yaml": (
        b"name: pets\nbackground_id: 0\nclasses:\n  dog:\n    phrases: [dog, hound]\n    id: 3\n"
        b"    color: [1, 2, 3]\n  cat:\n    aliases: [puss]\n",
        lambda path: ClassSet.load(str(path)),
    ),
}


def damaged(data: bytes, generator: random.Random) -> bytes:
    """Flip bits, cut, insert bytes, encode again, or replace one value."""
    kind, changed, at = generator.random(), bytearray(data), generator.randrange(len(data))
    if kind < 0.4:
        for _ in range(generator.randint(1, 3)):
            changed[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    elif kind < 0.5:
        del changed[at:]
    elif kind < 0.6:
        changed[at:at] = generator.randbytes(generator.randint(1, 4))
    elif kind < 0.65:
        return data.decode("latin-1").encode("utf-16")
    else:
        values = list(re.finditer(rb'"[^"]*"|-?\d+(\.\d+)?|\[[^\[\]]*\]|\w+', data))
        value = generator.choice(values)
        changed[value.start() : value.end()] = generator.choice(VALUES)
    return bytes(changed)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_read_or_named(tmp_path: Path, name: str) -> None:
    content, read = FILES[name]
    for photo in ("a.jpg", "b.jpg"):
        Image.new("RGB", (6, 4)).save(tmp_path / photo)
    path = tmp_path / name
    path.write_bytes(content)
    read(path)
    generator = random.Random(7)
    errors = []
    for _ in range(400):
        path.write_bytes(damaged(content, generator))
        try:
            read(path)
        except ValueError as error:
            errors.append(str(error))
    assert len(errors) > 50
    assert [text for text in errors if str(path) not in text] == []
