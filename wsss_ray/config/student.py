"""Configuration of the student: its network and its initial weights."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from wsss_ray.config.shared import FieldError, require

Geometry = Literal["caffe", "torchvision"]
Initialisation = Literal["none", "imagenet", "caffe", "checkpoint", "pretrained"]

DEEPLAB = ("deeplabv2-resnet101", "deeplabv2-resnet50", "deeplabv2-resnet18", "deeplabv2-tiny")
"""Architectures that this package builds; others come from a library."""


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """The segmentation network that is trained on labels."""

    architecture: str = "deeplabv2-resnet101"
    """deeplabv2-resnet101, -resnet50, -resnet18, deeplabv2-tiny (the demo's), torchvision:NAME (of torchvision's
    segmentation models) or transformers:ID-or-DIRECTORY (any AutoModelForSemanticSegmentation)."""
    revision: str | None = None
    """Commit (40 hex digits) of a transformers hub id; required for one."""
    geometry: Literal["auto", "caffe", "torchvision"] = "auto"
    """Where DeepLab-v2's ResNet has its strides and dilations: caffe (as published) or torchvision (as its ImageNet
    weights were trained). auto: torchvision for `deeplabv2-tiny` (random weights train faster with less
    dilation) and with `init: imagenet`; the checkpoint's with `init: checkpoint`; else caffe."""
    scales: tuple[float, ...] | None = None
    """Scales of the image in training and prediction, 1 first; the maximum of their logits counts. Unset: 1, 0.75, 0.5
    for DeepLab-v2 (as published); 1, 0.5 for its tiny one; only 1 for others."""
    init: Initialisation = "imagenet"
    """none: random. imagenet: torchvision's ImageNet weights in the backbone. caffe: a published Caffe-style DeepLab
    (such as the COCO one). checkpoint: a student.safetensors; its head is kept if the classes are the same.
    pretrained: the weights of a transformers or torchvision segmentation model; its head likewise."""
    weights: str | None = None
    """File or URI (local, `s3://`, `https://`) of the initial weights; of `imagenet` and `pretrained` also the name of
    torchvision's (IMAGENET1K_V2, ...). Unset: torchvision's first weights, or those of the transformers model."""
    sha256: str | None = None
    """Expected SHA-256 of the weights' file (64 hex digits). Required for `https://`, and by torch below 2.10 for other
    files than .safetensors."""

    def __post_init__(self) -> None:
        """Check ranges and combinations."""
        kind, colon, name = self.architecture.partition(":")
        known = self.architecture in DEEPLAB or (kind in ("torchvision", "transformers") and colon and name)
        choices = ", ".join([*DEEPLAB, "torchvision:NAME", "transformers:ID-or-DIRECTORY"])
        require(self, "architecture", bool(known), f"one of {choices}")
        scales = self.scales
        is_list = scales is None or (scales[:1] == (1.0,) and len(set(scales)) == len(scales))
        require(self, "scales", is_list, "different scales, the first of them 1")
        require(self, "scales", scales is None or all(0.1 <= scale <= 2 for scale in scales), "from 0.1 to 2")
        is_hex = self.sha256 is None or re.fullmatch(r"[0-9a-fA-F]{64}", self.sha256)
        require(self, "sha256", bool(is_hex), "64 hexadecimal digits")
        is_commit = self.revision is None or re.fullmatch(r"[0-9a-f]{40}", self.revision)
        require(self, "revision", bool(is_commit), "a full commit, 40 hexadecimal digits")
        self._check_init()

    def _check_init(self) -> None:
        deeplab = self.architecture in DEEPLAB
        if self.init not in _INITIALISATIONS[self.family]:
            raise FieldError(
                "init",
                f"StudentConfig.init is {self.init!r}: {self.architecture} takes "
                f"{', '.join(_INITIALISATIONS[self.family])}.",
            )
        if self.geometry != "auto" and not deeplab:
            raise FieldError(
                "geometry", f"StudentConfig.geometry is {self.geometry!r}: only DeepLab-v2 has one; leave it auto."
            )
        if self.init == "none" and self.weights is not None:
            raise FieldError(
                "weights",
                f"StudentConfig.weights is {self.weights!r}, but init is none, which takes no weights: set init.",
            )
        if self.init in ("caffe", "checkpoint") and self.weights is None:
            raise FieldError(
                "init", f"StudentConfig.weights is unset: init {self.init} needs a file or URI of weights."
            )
        if self.init == "pretrained" and self.family == "transformers" and self.weights is not None:
            raise FieldError(
                "weights", "StudentConfig.weights is set, but a transformers model brings its own: leave it unset."
            )

    @property
    def family(self) -> str:
        """Return the kind of network: deeplab, tiny, torchvision or transformers."""
        if self.architecture == "deeplabv2-tiny":
            return "tiny"
        return "deeplab" if self.architecture in DEEPLAB else self.architecture.partition(":")[0]

    @property
    def resolved_scales(self) -> tuple[float, ...]:
        """Return the scales, those of the architecture if they are unset."""
        if self.scales is not None:
            return self.scales
        return {"deeplab": (1.0, 0.75, 0.5), "tiny": (1.0, 0.5)}.get(self.family, (1.0,))


_INITIALISATIONS: dict[str, tuple[Initialisation, ...]] = {
    "deeplab": ("none", "imagenet", "caffe", "checkpoint"),
    "tiny": ("none", "checkpoint"),
    "torchvision": ("none", "imagenet", "pretrained", "checkpoint"),
    "transformers": ("none", "pretrained", "checkpoint"),
}
