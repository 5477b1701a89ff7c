"""The student's interface: build one, train it, keep it as bytes, read it back and predict.

>>> student = build_student(StudentConfig(architecture="deeplabv2-tiny", init="none"), class_set, weights=None)
>>> outputs = student(images)
>>> loss_sums = student.loss_sums(outputs, student.targets(labels))
>>> probabilities = decode_student(encode_student(student)).predict([image])
"""

from wsss_ray.models.student_building import build_student
from wsss_ray.models.student_files import decode_student, encode_student, read_spec
from wsss_ray.models.student_network import Student
from wsss_ray.models.student_sources import WeightsSource, weights_source
from wsss_ray.models.student_spec import (
    BACKGROUND,
    CAFFE,
    IGNORE,
    IMAGENET,
    Preprocessing,
    StudentSpec,
    index_to_label,
    label_to_index,
)

__all__ = [
    "BACKGROUND",
    "CAFFE",
    "IGNORE",
    "IMAGENET",
    "Preprocessing",
    "Student",
    "StudentSpec",
    "WeightsSource",
    "build_student",
    "decode_student",
    "encode_student",
    "index_to_label",
    "label_to_index",
    "read_spec",
    "weights_source",
]
