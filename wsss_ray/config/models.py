"""Sections of configurations that describe the models of the labelling job."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from wsss_ray.config.shared import require, require_registered

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "tf32", "bfloat16", "float16"]
Kernels = Literal["auto", "stock"]

DETECTOR_SETTINGS = ("mode", "resize", "preprocessing", "kernels")
"""Fields of DetectorConfig that not every detector uses; `Detector.settings` says which it does."""
SEGMENTER_SETTINGS = ("preprocessing", "boxes_per_chunk", "compile", "kernels")
"""The same of SegmenterConfig."""


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """The detector: phrases to boxes."""

    type: str = "grounding-dino"
    """Kind of detector: grounding-dino, one that an installed package registers, or `module:Class`."""
    model: str = "IDEA-Research/grounding-dino-tiny"
    """Hub id, local directory or `s3://` prefix of a Grounding DINO or MM Grounding DINO checkpoint, or "demo" for the
    tiny one that the package ships."""
    revision: str | None = None
    """Commit of the hub model. Unset: the pinned commit for the default model, else refused for a hub id."""
    mode: Literal["parent", "reference"] = "parent"
    """parent: a box belongs to the class of its best token (paper, 3.1). reference: additionally dropped where a
    delimiter token scores higher, as the published code does."""
    box_threshold: float = 0.3
    """A query is kept when its best class score exceeds this (0 to 1)."""
    class_nms: float | None = None
    """IoU above which the lower-scoring of two boxes of one class is dropped. Unset: off, as published."""
    cross_class_nms: float | None = None
    """The same across classes. Unset: off, as published."""
    resize: Literal["processor", "published", "rounded"] = "processor"
    """Rule for the network's input size where the longest-side cap applies: the checkpoint's processor, or the
    published code's, which can be a pixel smaller. rounded: both sides to multiples of 32, so that more images have
    equal size and run together on a GPU; boxes move a little (docs/performance.md)."""
    preprocessing: Literal["torchvision", "pil"] = "torchvision"
    """Resizing backend: torchvision (on the device; within one grey level on 0.04 % of pixels) or pil (exact)."""
    batch_size: int = 8
    """Images of equal network size that run together. Changes speed and memory, not boxes."""
    device: Device = "auto"
    """auto: CUDA where the actor has a GPU, else CPU."""
    precision: Precision = "auto"
    """auto: bfloat16 autocast on CUDA (float32 where the GPU has no native bfloat16), float32 on CPU. Boxes and scores
    are always returned in float32."""
    kernels: Kernels = "auto"
    """auto: faster layers of this package, equal but for rounding. stock: the layers of transformers itself."""
    options: dict[str, str | int | float | bool] = field(default_factory=dict)
    """Settings of a detector of another type: name and value."""

    def __post_init__(self) -> None:
        """Check ranges, and that the type exists."""
        from wsss_ray.models.registries import DETECTORS  # noqa: PLC0415 - it imports this module

        require_registered(self, "type", DETECTORS)
        require(self, "box_threshold", 0 <= self.box_threshold < 1, "at least 0 and below 1")
        for name in ("class_nms", "cross_class_nms"):
            value = getattr(self, name)
            require(self, name, value is None or 0 < value <= 1, "above 0 and at most 1")
        require(self, "batch_size", self.batch_size >= 1, "at least 1")


@dataclass(frozen=True, kw_only=True)
class SegmenterConfig:
    """The segmenter: boxes to instance masks."""

    type: str = "sam"
    """Kind of segmenter: sam, one that an installed package registers, or `module:Class`."""
    model: str = "vit_h"
    """Architecture. SAM: vit_h, vit_l, vit_b, or tiny, the small network that the package ships for its demo."""
    checkpoint: str | None = None
    """File or URI (local, `s3://`, `https://`) of the weights, .pth or .safetensors. Only `tiny` needs none."""
    sha256: str | None = None
    """Expected SHA-256 of the checkpoint (64 hex digits). Required for `https://`, and by torch below 2.10 for .pth."""
    preprocessing: Literal["torchvision", "pil"] = "pil"
    """Resizing backend: pil (exact) or torchvision (an eighth of the time; equal at 640 x 480 and 500 x 375, elsewhere
    within one grey level on 0.02 % of values)."""
    batch_size: int = 4
    """Images of one batch. On the CPU the encoder runs them one by one."""
    boxes_per_chunk: int | None = None
    """Boxes decoded at once, over all images of a batch: bounds the decoder's memory. Unset: 64 on CUDA; 1 on the CPU,
    where larger chunks are no faster and change the last bits."""
    device: Device = "auto"
    """auto: CUDA where the actor has a GPU, else CPU."""
    precision: Precision = "auto"
    """auto: bfloat16 autocast on CUDA, float32 on CPU. The prompt encoder always runs in float32."""
    compile: Literal["off", "default", "max-autotune-no-cudagraphs"] = "off"
    """torch.compile of the image encoder: the mode. Costs minutes when an actor starts, and a C++ compiler; equal but
    for rounding."""
    kernels: Kernels = "auto"
    """auto: faster layers of this package, equal but for rounding. stock: the layers of segment-anything itself."""
    options: dict[str, str | int | float | bool] = field(default_factory=dict)
    """Settings of a segmenter of another type: name and value."""

    def __post_init__(self) -> None:
        """Check ranges, and that the type exists."""
        from wsss_ray.models.registries import SEGMENTERS  # noqa: PLC0415 - it imports this module

        require_registered(self, "type", SEGMENTERS)
        models = SEGMENTERS.get(self.type).models
        require(self, "model", models is None or self.model in models, f"one of {', '.join(models or ())}")
        require(self, "batch_size", self.batch_size >= 1, "at least 1")
        require(self, "boxes_per_chunk", self.boxes_per_chunk is None or self.boxes_per_chunk >= 1, "at least 1")
        is_hex = self.sha256 is None or (len(self.sha256) == 64 and set(self.sha256.lower()) <= set("0123456789abcdef"))
        require(self, "sha256", is_hex, "64 hexadecimal digits")


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """Joining the instance masks of an image into one label map."""

    paint: str = "score"
    """Which mask wins where several cover a pixel. detection: the later query (published). score: the higher detector
    score. area: the smaller mask. prob: the higher detector score times mask probability. Or a rule that an installed
    package registers."""

    def __post_init__(self) -> None:
        """Check that the rule exists."""
        from wsss_ray.models.registries import FUSION_RULES  # noqa: PLC0415 - it imports this module

        require_registered(self, "paint", FUSION_RULES)
