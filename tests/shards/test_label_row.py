"""Instances and label rows: to a row and back, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from wsss_ray.classes import ClassSet
from wsss_ray.images.label_png import encode_label
from wsss_ray.images.rle import encode_mask
from wsss_ray.shards.footers import ShardError
from wsss_ray.shards.instance import Instance
from wsss_ray.shards.label_row import LabelRow
from wsss_ray.shards.schemas import INSTANCE_TYPE, LABEL_SCHEMA

MASK = np.array([[True, False, False], [True, True, False]])
LABEL = np.array([[1, 0, 0], [1, 1, 255]], np.uint8)
INSTANCE = Instance(
    class_id=1, phrase="cat", score=0.5, box=(0, 0, 2, 2), mask_score=0.75, height=2, width=3, counts=encode_mask(MASK)
)
ROW = LabelRow(
    image_id="a",
    height=2,
    width=3,
    label=encode_label(LABEL, palette=None),
    instances=(INSTANCE,),
    tags=("cat", "dog"),
    undetected_tags=("dog",),
    status="ok",
)
CLASSES = ClassSet.from_names(["cat", "dog"])


def test_a_row_survives_arrow() -> None:
    written = pa.Table.from_pylist([ROW.to_row()], schema=LABEL_SCHEMA).to_pylist()[0]
    row = LabelRow.from_row(written, CLASSES)
    assert row.to_row() == ROW.to_row()
    assert row.instances == (INSTANCE,)
    assert np.array_equal(row.label_map(), LABEL)
    assert not row.failed


def test_an_instance_has_a_mask() -> None:
    entry = pa.array([INSTANCE.to_row()], INSTANCE_TYPE).to_pylist()[0]
    instance = Instance.from_row(entry, (2, 3))
    assert np.array_equal(instance.mask(), MASK)
    assert instance.area == 3


def test_columns_that_were_not_read_are_null() -> None:
    row = LabelRow.from_row({"image_id": "a", "height": 2, "width": 3, "status": "ok"})
    assert (row.label, row.instances, row.tags, row.undetected_tags, row.error) == (None, None, (), None, None)


def test_a_failure_keeps_the_image() -> None:
    image = {"image_id": "a", "height": 2, "width": 3, "tags": ["cat"], "source": "a.jpg"}
    row = LabelRow.failure(image, "decode: truncated")
    assert row.failed
    assert LabelRow.from_row(row.to_row(), CLASSES) is not None
    assert (row.status, row.error, row.tags, row.instances) == ("failed", "decode: truncated", ("cat",), None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": float("nan")}, "its score or box is not a number"),
        ({"box": [0.0, 0.0, float("inf"), 1.0]}, "its score or box is not a number"),
        ({"box": None}, "a value is missing"),
        ({"mask": None}, "a value is missing"),
        ({"mask": {"height": 3, "width": 2, "counts": b""}}, "its mask is 2 x 3, the image 3 x 2"),
        ({"mask": {"height": 2, "width": 3, "counts": b"1"}}, "its mask: RLE counts add up to 1 pixels"),
        ({"mask": {"height": 2, "width": 3, "counts": None}}, "its mask: "),
        ({"class_id": 3}, "no class has the id 3"),
    ],
)
def test_an_instance_that_cannot_be(change: dict[str, Any], message: str) -> None:
    row = {**ROW.to_row(), "instances": [{**INSTANCE.to_row(), **change}]}
    with pytest.raises(ShardError, match=f"image a: instance 0: {message}"):
        LabelRow.from_row(row, CLASSES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "kk"}, "its status is 'kk'"),
        ({"tags": ["cow"]}, "tag 'cow' is no class"),
        ({"undetected_tags": ["cow"]}, "tag 'cow' is no class"),
    ],
)
def test_a_row_that_cannot_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ShardError, match=f"image a: {message}"):
        LabelRow.from_row({**ROW.to_row(), **change}, CLASSES)


@pytest.mark.parametrize(
    ("label", "message"), [(b"no PNG", "cannot be read"), (encode_label(LABEL.T, palette=None), "wrong size")]
)
def test_a_label_that_cannot_be_decoded(label: bytes, message: str) -> None:
    row = LabelRow.from_row({**ROW.to_row(), "label": label})
    with pytest.raises(ShardError, match=f"image a.*{message}"):
        row.label_map()
