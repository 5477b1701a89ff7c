"""Build the networks of students from their specs."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from wsss_ray.config.student import DEEPLAB
from wsss_ray.models.student.adapters import build_adapter
from wsss_ray.models.student.deeplab import DeepLabV2
from wsss_ray.models.student.spec import StudentSpec


def build_network(spec: StudentSpec) -> nn.Module:
    """Return the network that a spec describes, randomly initialized.

    Raises:
        ValueError: the spec describes no network.
    """
    if spec.architecture in DEEPLAB:
        if spec.geometry is None:
            raise ValueError(f"{spec.architecture} needs a geometry: caffe or torchvision.")
        return DeepLabV2(spec.architecture, spec.geometry, spec.num_classes)
    return build_adapter(spec)


def shapes_of(spec: StudentSpec) -> dict[str, Tensor]:
    """Return the state dict of the network on the meta device: names and shapes without memory for values."""
    with torch.device("meta"):
        return build_network(spec).state_dict()


def class_tensors(spec: StudentSpec) -> set[str]:
    """Return the names of the tensors whose shape depends on the number of classes."""
    fresh = max(spec.class_ids) + 1
    more = dataclasses.replace(
        spec,
        class_ids=(*spec.class_ids, fresh if fresh != spec.ignore_id else fresh + 1),
        class_names=(*spec.class_names, "one more"),
    )
    shapes, others = shapes_of(spec), shapes_of(more)
    return {name for name, value in shapes.items() if value.shape != others[name].shape}
