"""Find a student on disk and in a bucket."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from local_s3 import S3Server
from prediction_cases import CLASSES, make_student

from wsss_ray.classes import ClassSet
from wsss_ray.config import StorageConfig
from wsss_ray.models.student.files import encode_student
from wsss_ray.prediction.student_file import find_student
from wsss_ray.storage.storage import Storage
from wsss_ray.storage.weights import fetch_file, file_digest


def test_a_training_s_output_and_its_file_name_the_same_student(
    student_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_folder = find_student(f"{student_run}/", StorageConfig())
    monkeypatch.chdir(student_run)
    by_file = find_student("student.safetensors", StorageConfig())
    assert by_folder == by_file
    assert by_file.uri == str(student_run / "student.safetensors")
    assert by_file.digest == file_digest(student_run / "student.safetensors")
    assert by_file.spec.architecture == "deeplabv2-tiny"


def test_a_student_s_classes_are_those_it_was_trained_with(tmp_path: Path) -> None:
    for classes in (CLASSES, ClassSet.load("voc"), ClassSet.from_names([f"class {i}" for i in range(300)])):
        file = tmp_path / "any.safetensors"
        file.write_bytes(encode_student(make_student(0, classes)))
        found = find_student(str(file), StorageConfig()).classes
        assert found.label_space_digest == classes.label_space_digest
        assert found.names == classes.names
        assert found.label_dtype is classes.label_dtype
        if len(classes.names) < 255:
            assert found.palette() == classes.palette()


def test_a_student_in_a_bucket(
    s3: S3Server, student_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSSS_RAY_CACHE", str(tmp_path))
    data = (student_run / "student.safetensors").read_bytes()
    Storage(s3.uri("training"), s3.config).write("student.safetensors", data)
    found = find_student(s3.uri("training"), s3.config)
    assert found == find_student(s3.uri("training/student.safetensors"), s3.config)
    assert found.uri == s3.uri("training/student.safetensors")
    assert found.classes.names == CLASSES.names
    assert fetch_file(found.uri, sha256=None, config=s3.config).read_bytes() == data
    with pytest.raises(ValueError, match="there is no student s3://"):
        find_student(s3.uri("nowhere"), s3.config)


def test_a_flipped_bit_of_a_student_is_noticed_before_anything_starts(
    student_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSSS_RAY_CACHE", str(tmp_path / "cache"))
    data = (student_run / "student.safetensors").read_bytes()
    (tmp_path / "student.safetensors.sha256").write_text(f"{hashlib.sha256(data).hexdigest()}\n")
    (tmp_path / "student.safetensors").write_bytes(data)
    assert find_student(str(tmp_path), StorageConfig()).sha256 == hashlib.sha256(data).hexdigest()
    (tmp_path / "student.safetensors").write_bytes(data[:-2] + bytes([data[-2] ^ 4]) + data[-1:])
    with pytest.raises(ValueError, match=r"student\.safetensors is damaged: its SHA-256"):
        find_student(str(tmp_path), StorageConfig())


@pytest.mark.parametrize("text", [b"[" * 5000, b"\xff\xfe", b'{"__metadata__": {"student": "[[["}}'])
def test_a_damaged_header_of_a_student_is_an_error_that_names_the_file(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "student.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(ValueError, match=r"student\.safetensors"):
        find_student(str(tmp_path), StorageConfig())


@pytest.mark.parametrize("field", ["class_set", "preprocessing"])
def test_a_deeply_nested_description_is_an_error(student_run: Path, tmp_path: Path, field: str) -> None:
    del student_run
    description = '{"format": "wsss_ray.student/1", "' + field + '": ' + "[" * 3000 + "]" * 3000 + "}"
    text = json.dumps({"__metadata__": {"student": description}}).encode()
    (tmp_path / "student.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(ValueError, match=r"student\.safetensors"):
        find_student(str(tmp_path), StorageConfig())
