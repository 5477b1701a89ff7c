"""The student's file: students are read back equal, and other files are refused."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from wsss_ray.classes import ClassSet
from wsss_ray.config import StudentConfig
from wsss_ray.models.student.building import build_student
from wsss_ray.models.student.files import decode_student, encode_student
from wsss_ray.models.student.header import read_spec
from wsss_ray.models.student.network import StudentNetwork

TINY = StudentConfig(architecture="deeplabv2-tiny", init="none")
PICTURE = np.random.default_rng(0).integers(0, 256, (40, 31, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def student() -> StudentNetwork:
    torch.manual_seed(0)
    return build_student(TINY, ClassSet.load("demo"), weights=None).eval()


@pytest.fixture(scope="module")
def data(student: StudentNetwork) -> bytes:
    return encode_student(student)


def test_a_student_comes_back_to_the_bit(student: StudentNetwork, data: bytes) -> None:
    decoded = decode_student(data)
    assert decoded.spec == student.spec
    assert not decoded.training
    assert torch.equal(decoded.predict([PICTURE])[0], student.predict([PICTURE])[0])
    assert encode_student(decoded) == data
    trained = [name for name, value in student.named_parameters() if value.requires_grad]
    assert [name for name, value in decoded.named_parameters() if value.requires_grad] == trained


def test_memory_format_and_mode_do_not_change_the_file(data: bytes) -> None:
    decoded = decode_student(data).to(memory_format=torch.channels_last).train()
    assert encode_student(decoded) == data


def test_the_file_is_plain_safetensors(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "student.safetensors").write_bytes(data)
    with safe_open(tmp_path / "student.safetensors", "pt") as file:
        spec = json.loads(file.metadata()["student"])
        assert "aspp.branches.3.bias" in file.keys()  # noqa: SIM118 - not a mapping
    assert spec["class_names"][3] == "dining table"
    assert spec["preprocessing"]["mean"] == [123.675, 116.28, 103.53]


def test_the_spec_is_read_from_the_head_of_the_file(student: StudentNetwork, data: bytes) -> None:
    head = data[: 8 + int.from_bytes(data[:8], "little")]
    assert read_spec(head) == student.spec


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("a pickle was executed",))


@pytest.mark.parametrize("size", [0, 7, 8, 100, -1])
def test_a_part_of_a_file_is_refused(data: bytes, size: int) -> None:
    with pytest.raises(ValueError, match=r"run/student\.safetensors is (not a safetensors|damaged or incomplete)"):
        decode_student(data[:size], where="run/student.safetensors")


@pytest.mark.parametrize("protocol", [0, 4])
def test_a_pickle_is_refused(protocol: int) -> None:
    with pytest.raises(ValueError, match="not a safetensors file"):
        decode_student(pickle.dumps(Bomb(), protocol=protocol))


def test_tensors_without_a_description_are_refused() -> None:
    with pytest.raises(ValueError, match="no description of a student"):
        decode_student(save({"aspp.branches.0.weight": torch.zeros(3)}))
    with pytest.raises(ValueError, match="not of the form"):
        decode_student(save({"a": torch.zeros(3)}, metadata={"student": "{}"}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"architecture": "deeplabv2-resnet50"},
            "does not have the tensors of the network that it describes: .* missing",
        ),
        ({"architecture": "deeplabv2-resnet9"}, "no student with architecture 'deeplabv2-resnet9'"),
        ({"architecture": "torchvision:unet"}, "no segmentation model 'unet'"),
        ({"architecture": "transformers:x", "settings": "{}"}, "lack a model_type"),
        ({"architecture": "transformers:x", "settings": '{"model_type": "nothing"}'}, "cannot be built"),
        ({"geometry": None}, "needs a geometry"),
        ({"class_names": ["a", "b"], "class_ids": [0, 1]}, "of another shape"),
    ],
)
def test_a_description_of_another_network_is_refused(
    student: StudentNetwork, change: dict[str, object], message: str
) -> None:
    description = json.dumps(json.loads(student.spec.to_json()) | change)
    forged = save(student.network.state_dict(), metadata={"student": description})
    with pytest.raises(ValueError, match=message):
        decode_student(forged)
