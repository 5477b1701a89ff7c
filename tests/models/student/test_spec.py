"""The student's spec: JSON and back, and label maps to channels and back."""

import json

import numpy as np
import pytest

from wsss_ray.classes import ClassSet
from wsss_ray.models.student.spec import IGNORE, StudentSpec, index_to_label, label_to_index


def spec_of(class_set: ClassSet) -> StudentSpec:
    return StudentSpec.of(class_set, architecture="deeplabv2-tiny", geometry="caffe", scales=(1.0, 0.5))


@pytest.fixture
def odd_ids() -> StudentSpec:
    """Ids that are not the channels: background 7, cat 30, dog 2, ignore 0."""
    spec = spec_of(ClassSet.from_names(["cat", "dog"]))
    values = json.loads(spec.to_json()) | {"class_ids": [7, 30, 2], "ignore_id": 0}
    return StudentSpec.from_json(json.dumps(values))


def test_spec_describes_the_class_set() -> None:
    class_set = ClassSet.load("voc")
    spec = spec_of(class_set)
    assert spec.num_classes == 21
    assert spec.class_names[:3] == ("background", "aeroplane", "bicycle")
    assert spec.class_ids == tuple(range(21))
    assert (spec.background_id, spec.ignore_id, spec.label_dtype) == (0, 255, np.uint8)
    assert spec.label_space == class_set.label_space_digest
    assert spec.palette_bytes() == class_set.palette()


def test_json_round_trip() -> None:
    spec = spec_of(ClassSet.load("coco"))
    assert StudentSpec.from_json(spec.to_json()) == spec


def test_many_classes_have_no_palette_and_16_bits() -> None:
    spec = spec_of(ClassSet.from_names([f"class {number}" for number in range(300)]))
    assert spec.palette_bytes() is None
    assert spec.label_dtype is np.uint16
    label = np.array([[300, 65535], [0, 299]], np.uint16)
    assert label_to_index(label, spec).tolist() == [[300, IGNORE], [0, 299]]
    assert np.array_equal(index_to_label(label_to_index(label, spec), spec), label)


def test_labels_to_channels_and_back(odd_ids: StudentSpec) -> None:
    label = np.array([[7, 30, 2], [0, 30, 7]], np.uint8)
    index = label_to_index(label, odd_ids)
    assert index.tolist() == [[0, 1, 2], [IGNORE, 1, 0]]
    back = index_to_label(index, odd_ids)
    assert back.dtype == np.uint8
    assert np.array_equal(back, label)


def test_an_id_of_no_class_is_refused(odd_ids: StudentSpec) -> None:
    with pytest.raises(ValueError, match="pixels of id 1, which is not a class of the student"):
        label_to_index(np.array([[7, 1]], np.uint8), odd_ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_ids": [0, 1]}, "as many different ids as names"),
        ({"class_ids": [0, 1, 1]}, "as many different ids as names"),
        ({"class_ids": [0, 1, 70000]}, "from 0 to 65535"),
        ({"ignore_id": 2}, "also the id of one of its classes"),
        ({"scales": [0.5]}, "the first of them 1"),
        ({"scales": [1.0, 1e9]}, "from 0.1 to 2"),
        ({"scales": "1.0"}, "cannot be used"),
        ({"palette": "00"}, "768 bytes"),
        ({"palette": 5}, "cannot be used"),
        ({"geometry": "round"}, "cannot be used"),
        ({"preprocessing": None}, "cannot be used"),
        ({"preprocessing": {"mean": [1.0, 2.0]}}, "cannot be used"),
        ({"preprocessing": {"std": [1.0, 2.0, 0.0]}}, "more than 0"),
        ({"surprise": 1}, "cannot be used"),
        ({"format": "other"}, "not of the form"),
    ],
)
def test_damaged_descriptions_are_refused(change: dict[str, object], message: str) -> None:
    values = json.loads(spec_of(ClassSet.from_names(["cat", "dog"])).to_json()) | change
    with pytest.raises(ValueError, match=message):
        StudentSpec.from_json(json.dumps(values))


@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_what_is_no_description_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="description is not"):
        StudentSpec.from_json(text)
