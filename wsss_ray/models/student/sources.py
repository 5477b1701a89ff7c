"""Find the initial weights of a student: what a job copies to each node before it builds the student."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsss_ray.addresses import is_hub_id, is_uri, local_path
from wsss_ray.config.student import StudentConfig


@dataclass(frozen=True, kw_only=True)
class WeightsSource:
    """Weights to copy to this machine; the local path is the argument `weights` of `build_student`."""

    kind: Literal["file", "directory", "hub"]
    """file: a path or URI. directory: a path or URI of a transformers checkpoint. hub: a transformers hub id."""
    uri: str
    """Path, URI, or hub id."""
    sha256: str | None = None
    """Expected SHA-256 in hexadecimal digits, or its first digits where the publisher's file name has only these."""
    revision: str | None = None
    """Commit of a hub id."""


def weights_source(config: StudentConfig) -> WeightsSource | None:
    """Return the weights that `build_student(config, ...)` needs; None where it needs no file.

    Raises:
        ValueError: torchvision has no such model or weights, or a hub id has no commit.
    """
    kind, _, name = config.architecture.partition(":")
    if kind == "transformers":
        model = _transformers_source(name, config)
        if config.init != "checkpoint":
            return model
    if config.init == "none":
        return None
    if config.init == "imagenet":
        return _file(config, _backbone_name(config.architecture))
    if config.init == "pretrained":
        return _file(config, segmentation_name(name))
    assert config.weights is not None
    return WeightsSource(kind="file", uri=config.weights, sha256=config.sha256)


def segmentation_name(name: str) -> str:
    """Return the name of a segmentation model of torchvision.

    Raises:
        ValueError: torchvision has no such model; lists the names.
    """
    from torchvision.models import list_models, segmentation  # noqa: PLC0415 - seconds that other students do without

    known = list_models(module=segmentation)
    if name not in known:
        raise ValueError(f"torchvision has no segmentation model {name!r}: choose one of {', '.join(known)}.")
    return name


def _backbone_name(architecture: str) -> str:
    """Return torchvision's name of the classification network that is a student's backbone."""
    kind, _, name = architecture.partition(":")
    if kind == "torchvision":
        return segmentation_name(name).partition("_")[2]  # deeplabv3_resnet50, lraspp_mobilenet_v3_large
    return architecture.removeprefix("deeplabv2-")


def _file(config: StudentConfig, model: str) -> WeightsSource:
    """Return the configured file, or the weights of torchvision by name; unset: the first of the model."""
    from torchvision.models import get_model_weights  # noqa: PLC0415 - as above

    published = {member.name: member.url for member in get_model_weights(model)}
    name = next(iter(published)) if config.weights is None else config.weights
    if name not in published:
        if re.fullmatch(r"[A-Z0-9_]+", name) and not Path(name).exists():
            raise ValueError(f"torchvision has no weights {name!r} of {model}: choose one of {', '.join(published)}.")
        return WeightsSource(kind="file", uri=name, sha256=config.sha256)
    digits = re.search(r"-([0-9a-f]{8,})\.pth$", published[name])
    assert digits, published[name]
    return WeightsSource(kind="file", uri=published[name], sha256=config.sha256 or digits[1])


def _transformers_source(name: str, config: StudentConfig) -> WeightsSource:
    """Return the directory or hub model of a transformers architecture."""
    if is_uri(name) or local_path(name).is_dir():
        if config.revision is not None:
            raise ValueError(
                f"student.revision is set, but {name} is a directory, which has no revisions: leave it unset."
            )
        return WeightsSource(kind="directory", uri=name)
    if not is_hub_id(name):
        raise ValueError(
            f"student.architecture transformers:{name} is neither a directory here nor a hub id (owner/name)."
        )
    if config.revision is None:
        raise ValueError(
            f"student.architecture transformers:{name}: there is no such directory, and a hub model needs "
            f"student.revision, the 40 hex digits of a commit (see https://huggingface.co/{name}/commits/main)."
        )
    return WeightsSource(kind="hub", uri=name, revision=config.revision)
