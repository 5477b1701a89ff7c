"""Where a student's initial weights come from: what a job fetches, once for each node, before it builds the student."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsss_ray.config.student import StudentConfig


@dataclass(frozen=True, kw_only=True)
class WeightsSource:
    """Weights to bring to this machine; their local path is `build_student`'s `weights`."""

    kind: Literal["file", "directory", "hub"]
    """file: a path or URI. directory: a path or URI of a transformers checkpoint. hub: a transformers hub id."""
    uri: str
    """Path, URI, or hub id."""
    sha256: str | None = None
    """Expected SHA-256 in hexadecimal digits, or as many of its first digits as the publisher's file name has."""
    revision: str | None = None
    """Commit of a hub id."""


def weights_source(config: StudentConfig) -> WeightsSource | None:
    """What has to be there before `build_student(config, ...)`; None where it needs no file.

    Raises ValueError for a torchvision model or weights of it that do not exist, and for a hub id without a commit.
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
    """The name, checked to be one of torchvision's segmentation models."""
    from torchvision.models import list_models, segmentation  # noqa: PLC0415 - seconds that other students do without

    known = list_models(module=segmentation)
    if name not in known:
        raise ValueError(f"torchvision has no segmentation model {name!r}: choose one of {', '.join(known)}.")
    return name


def _backbone_name(architecture: str) -> str:
    """torchvision's name of the classification network inside a student."""
    kind, _, name = architecture.partition(":")
    if kind == "torchvision":
        return segmentation_name(name).partition("_")[2]  # deeplabv3_resnet50, lraspp_mobilenet_v3_large
    return architecture.removeprefix("deeplabv2-")


def _file(config: StudentConfig, model: str) -> WeightsSource:
    """torchvision's file of a model, by its name or the first; or the file that the configuration names."""
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
    if "://" in name or Path(name).expanduser().is_dir():
        if config.revision is not None:
            raise ValueError(f"student.revision is set, but {name} is a directory, which has no revisions: unset it.")
        return WeightsSource(kind="directory", uri=name)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name):
        raise ValueError(f"student.architecture transformers:{name}: no directory here, nor a hub id (owner/name).")
    if config.revision is None:
        raise ValueError(
            f"student.architecture transformers:{name}: there is no such directory, and a hub model needs "
            f"student.revision, the 40 hex digits of a commit (see https://huggingface.co/{name}/commits/main)."
        )
    return WeightsSource(kind="hub", uri=name, revision=config.revision)
