"""The public student: the labels of the prediction job, from any form of image."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from prediction_cases import CLASSES, DAMAGED

from wsss_ray.config import PredictConfig
from wsss_ray.engine.stage import Meter
from wsss_ray.images.decoding import decode_image
from wsss_ray.images.header import ImageError
from wsss_ray.images.label_png import decode_label
from wsss_ray.prediction.stage import PredictStage
from wsss_ray.prediction.student import Student

Configure = Callable[..., PredictConfig]


@pytest.mark.parametrize("fields", [{}, {"flip": True}, {"longest_side": 96}])
def test_labels_are_those_of_the_job(
    configure: Configure, scene_rows: pa.Table, student_run: Path, fields: dict[str, object]
) -> None:
    whole = [row for row in scene_rows.to_pylist() if row["image_id"] != DAMAGED]
    rows = pa.Table.from_pylist(whole, scene_rows.schema).append_column("error", pa.nulls(len(whole), pa.string()))
    stage = PredictStage(configure("out", batch_size=1, **fields), f"{student_run}/student.safetensors", "ignore")
    expected = [decode_label(label) for label in stage(rows, Meter())["label"].to_pylist()]
    student = Student.load(student_run)
    assert student.classes.names == CLASSES.names
    found = student.predict([decode_image(row["image"], exif="ignore") for row in whole], **fields)  # type: ignore[arg-type]
    assert [label.dtype for label in found] == [np.uint8] * len(whole)
    assert all(np.array_equal(label, other) for label, other in zip(found, expected, strict=True))


def test_a_path_an_array_and_a_pil_image_give_the_same_label(
    scene_rows: pa.Table, student_run: Path, tmp_path: Path
) -> None:
    data = scene_rows["image"][0].as_py()
    (tmp_path / "scene.jpg").write_bytes(data)
    pixels = decode_image(data, exif="ignore")
    student = Student.load(str(student_run / "student.safetensors"), device="cpu")
    labels = student.predict([tmp_path / "scene.jpg", str(tmp_path / "scene.jpg"), pixels, Image.fromarray(pixels)])
    assert len(np.unique(labels[0])) >= 2
    assert all(np.array_equal(label, labels[0]) for label in labels)


def test_a_photo_with_an_orientation_is_turned_upright(scene_rows: pa.Table, student_run: Path, tmp_path: Path) -> None:
    image = Image.open(io.BytesIO(scene_rows["image"][0].as_py()))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    (label,) = Student.load(student_run).predict([tmp_path / "turned.jpg"])
    assert label.shape == image.size


def test_what_is_no_image_and_no_student_is_refused(scene_rows: pa.Table, student_run: Path, tmp_path: Path) -> None:
    student = Student.load(student_run)
    with pytest.raises(ValueError, match=r"float32 of shape \(3, 4\): give \(height, width, 3\) of uint8 RGB"):
        student.predict([np.zeros((3, 4), np.float32)])  # type: ignore[list-item]
    (tmp_path / "torn.jpg").write_bytes(scene_rows["image"][4].as_py())
    with pytest.raises(ImageError, match="truncated"):
        student.predict([tmp_path / "torn.jpg"])
    with pytest.raises(ValueError, match="there is no student"):
        Student.load(tmp_path)
