"""Build a student from a configuration and a file of weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from wsss_ray.classes import ClassSet
from wsss_ray.config.student import DEEPLAB, Geometry, StudentConfig
from wsss_ray.errors import CheckpointError
from wsss_ray.models.state_files import differences, read_state
from wsss_ray.models.student import adapters as student_adapters
from wsss_ray.models.student.architectures import build_network, class_tensors, shapes_of
from wsss_ray.models.student.caffe_weights import from_caffe_names
from wsss_ray.models.student.files import decode_student
from wsss_ray.models.student.network import StudentNetwork
from wsss_ray.models.student.sources import weights_source
from wsss_ray.models.student.spec import CAFFE, StudentSpec


def build_student(config: StudentConfig, class_set: ClassSet, *, weights: Path | None) -> StudentNetwork:
    """Return a student of a class set, on the CPU, in training mode.

    Args:
        config: the student's section of a configuration.
        class_set: the classes.
        weights: local copy of the weights that `sources.weights_source(config)` names, already checked against their
            digest; None where it names none.

    Raises:
        CheckpointError: the weights are absent, damaged or of another network.
    """
    if weights is not None and not weights.exists():
        raise CheckpointError(f"there are no weights for the student at {weights}.")
    if config.init != "none" and weights is None:
        raise CheckpointError(f"student.init {config.init} needs weights: give them, or set student.init to none.")
    spec = StudentSpec.of(
        class_set, architecture=config.architecture, geometry=_geometry(config), scales=config.resolved_scales
    )
    if config.init == "checkpoint":
        assert weights is not None
        return _from_checkpoint(spec, config, weights)
    if config.family == "transformers":
        assert weights is not None  # a directory, which has the configuration
        return _from_transformers(spec, config, weights)
    if config.init == "caffe":
        spec = dataclasses.replace(spec, preprocessing=CAFFE)
    student = StudentNetwork(spec, build_network(spec))
    if config.init == "none":
        return student
    assert weights is not None
    source = weights_source(config)
    digest_given = source is not None and source.sha256 is not None
    state, where = read_state(weights, digest_given=digest_given), str(weights)
    if config.init == "caffe":
        adopt(student, from_caffe_names(state, where), keep_head=False, where=where)
    elif config.init == "pretrained":
        keep = student_adapters.torchvision_classes_fit(class_set)
        adopt(student, student_adapters.from_segmentation(state), keep_head=keep, where=where)
    else:
        adopt(student, student_adapters.from_classifier(state), keep_head=False, where=where, backbone_only=True)
    return student


def adopt(
    student: StudentNetwork, state: Mapping[str, Tensor], *, keep_head: bool, where: str, backbone_only: bool = False
) -> None:
    """Copy weights into the student's network.

    Args:
        student: the student.
        state: weights by name.
        keep_head: whether tensors whose shape depends on the number of classes are copied too.
        where: the file, for messages.
        backbone_only: whether the weights are those of the backbone alone.

    Raises:
        CheckpointError: a weight is missing, unknown or of another shape.
    """
    expected = shapes_of(student.spec)
    if backbone_only:
        expected = {name: value for name, value in expected.items() if name.startswith(_backbone_prefix(student))}
        state = {f"{_backbone_prefix(student)}{name}": value for name, value in state.items()}
    if not keep_head:
        head = class_tensors(student.spec)
        expected = {name: value for name, value in expected.items() if name not in head}
        state = {name: value for name, value in state.items() if name not in head}
    counters = {name for name in expected if name.endswith(".num_batches_tracked") and name not in state}
    found = differences({name: value for name, value in expected.items() if name not in counters}, state)
    if found:
        raise CheckpointError(f"{where} does not fit the student {student.spec.architecture}: {found}.")
    student.network.load_state_dict(dict(state), strict=False)


def _geometry(config: StudentConfig) -> Geometry | None:
    if config.architecture not in DEEPLAB:
        return None
    if config.geometry == "auto":
        return "torchvision" if config.init == "imagenet" or config.family == "tiny" else "caffe"
    return config.geometry


def _backbone_prefix(student: StudentNetwork) -> str:
    return "backbone." if student.spec.architecture in DEEPLAB else "model.backbone."


def _from_checkpoint(spec: StudentSpec, config: StudentConfig, weights: Path) -> StudentNetwork:
    former = decode_student(weights.read_bytes(), where=str(weights))
    if former.spec.architecture != spec.architecture:
        raise CheckpointError(
            f"{weights} holds a {former.spec.architecture}, not a {spec.architecture}: set student.architecture to it."
        )
    spec = dataclasses.replace(
        spec,
        preprocessing=former.spec.preprocessing,
        geometry=former.spec.geometry if config.geometry == "auto" else spec.geometry,
        settings=former.spec.settings,
    )
    student = StudentNetwork(spec, build_network(spec))
    keep = former.spec.class_names == spec.class_names
    adopt(student, former.network.state_dict(), keep_head=keep, where=str(weights))
    return student


def _from_transformers(spec: StudentSpec, config: StudentConfig, directory: Path) -> StudentNetwork:
    spec, names = student_adapters.describe_transformers(spec, directory)
    student = StudentNetwork(spec, build_network(spec))
    if config.init == "pretrained":
        state = student_adapters.transformers_state(directory)
        adopt(student, state, keep_head=names == spec.class_names, where=str(directory))
    return student
