"""Parts of configurations that several jobs share: storage, Ray, and the models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from wsss_ray.registry import Registry
from wsss_ray.storage.redaction import refuse_credentials

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "tf32", "bfloat16", "float16"]


class FieldError(ValueError):
    """A value that a configuration's field cannot have."""

    def __init__(self, field: str, message: str) -> None:
        """Create the error.

        Args:
            field: name of the field, so that its line in a file can be found.
            message: the text, which names class and field.
        """
        super().__init__(message)
        self.field = field


def require(config: object, name: str, ok: bool, rule: str) -> None:
    """Raise a FieldError that names the field, its value and the rule it breaks, unless `ok`."""
    if not ok:
        raise FieldError(name, f"{type(config).__name__}.{name} is {getattr(config, name)!r}: it must be {rule}.")


def require_registered(config: object, name: str, registry: Registry[Any]) -> None:
    """Raise a FieldError that lists the valid names, unless the field's value is registered or not given yet."""
    value = getattr(config, name)
    try:
        if isinstance(value, str):
            registry.check(value)
    except ValueError as error:
        raise FieldError(name, f"{type(config).__name__}.{name}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class StorageConfig:
    """How `s3://` is reached. Keys come from the environment, a profile or the instance's role, never from here."""

    endpoint_url: str | None = None
    """S3 endpoint for stores other than AWS (MinIO, Ceph, ...). Unset: AWS_ENDPOINT_URL, else AWS."""
    region: str | None = None
    """S3 region. Unset: AWS_DEFAULT_REGION or the profile's."""
    profile: str | None = None
    """Named profile of ~/.aws/credentials, which must then exist on every node."""
    retries: int = 9
    """How often an S3 request is made again after an error that passes (busy, throttled, connection lost, timeout),
    with pauses from 0.2 to 20 s that vary: about 50 s in all."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self, "retries", self.retries >= 0, "0 or more")
        refuse_credentials(self.endpoint_url or "")


@dataclass(frozen=True, kw_only=True)
class RayConfig:
    """Where the job runs and how many actors it takes."""

    address: str | None = None
    """Address of an existing cluster ("auto", "ray://host:10001"). Unset: RAY_ADDRESS when a cluster set it (as
    `ray job submit` does), else a Ray of its own on this machine, bound to 127.0.0.1."""
    actors: int | None = None
    """Model actors (with `placement: split`: segmenters). Unset: one per GPU of the cluster, else one per core. Of jobs
    without models: tasks at once; unset: as many as the cores allow."""
    detector_actors: int | None = None
    """Detector actors with `placement: split`. Unset: a quarter of `actors`, at least one."""
    gpus_per_actor: float | None = None
    """GPUs each model actor holds (0.5: two share one). Unset: 1 where the cluster has GPUs, else 0."""
    cpus_per_actor: float | None = None
    """Cores each model actor holds. Unset: 1 with GPUs or `wait_for_nodes`; else the machine's cores divided
    among the actors. Of jobs without models: cores each task holds; unset: 1."""
    wait_for_nodes: bool = False
    """Accept a request that the cluster cannot meet yet, because an autoscaler will add the nodes. Model actors then
    need `actors` and `gpus_per_actor`."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("actors", "detector_actors"):
            value = getattr(self, name)
            require(self, name, value is None or value >= 1, "at least 1")
        require(self, "gpus_per_actor", self.gpus_per_actor is None or self.gpus_per_actor >= 0, "0 or more")
        require(self, "cpus_per_actor", self.cpus_per_actor is None or self.cpus_per_actor > 0, "more than 0")


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Grounding DINO: phrases to boxes."""

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
    resize: Literal["processor", "published"] = "processor"
    """Rule for the network's input size where the longest-side cap applies: the checkpoint's processor, or the
    published code's, which can be a pixel smaller."""
    preprocessing: Literal["torchvision", "pil"] = "torchvision"
    """Resizing backend: torchvision (on the device; within one grey level on 0.04 % of pixels) or pil (exact)."""
    batch_size: int = 8
    """Images of equal network size that run together. Changes speed and memory, not boxes."""
    device: Device = "auto"
    """auto: CUDA where the actor has a GPU, else CPU."""
    precision: Precision = "auto"
    """auto: bfloat16 autocast on CUDA (float32 where the GPU has no native bfloat16), float32 on CPU. Boxes and scores
    are always returned in float32."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self, "box_threshold", 0 <= self.box_threshold < 1, "at least 0 and below 1")
        for name in ("class_nms", "cross_class_nms"):
            value = getattr(self, name)
            require(self, name, value is None or 0 < value <= 1, "above 0 and at most 1")
        require(self, "batch_size", self.batch_size >= 1, "at least 1")


@dataclass(frozen=True, kw_only=True)
class SegmenterConfig:
    """SAM: boxes to instance masks."""

    model: Literal["vit_h", "vit_l", "vit_b", "tiny"] = "vit_h"
    """Architecture. tiny: the small network that the package ships for its demo."""
    checkpoint: str | None = None
    """File or URI (local, `s3://`, `https://`) of the weights, .pth or .safetensors. Only `tiny` needs none."""
    sha256: str | None = None
    """Expected SHA-256 of the checkpoint (64 hex digits). Required for `https://`, and by torch below 2.10 for .pth."""
    preprocessing: Literal["torchvision", "pil"] = "pil"
    """Resizing backend: pil (exact) or torchvision (an eighth of the time; equal at 640 x 480 and 500 x 375, elsewhere
    within one grey level on 0.02 % of values)."""
    batch_size: int = 4
    """Images taken at once. On the CPU the encoder works through them one by one."""
    boxes_per_chunk: int | None = None
    """Boxes decoded at once, over all images of a batch: bounds the decoder's memory. Unset: 64 on CUDA; 1 on the CPU,
    where more gain nothing and change the last bits."""
    device: Device = "auto"
    """auto: CUDA where the actor has a GPU, else CPU."""
    precision: Precision = "auto"
    """auto: bfloat16 autocast on CUDA, float32 on CPU. The prompt encoder always runs in float32."""
    compile: Literal["off", "default", "max-autotune-no-cudagraphs"] = "off"
    """torch.compile of the image encoder: the mode. Costs minutes when an actor starts, and a C++ compiler; equal but
    for rounding."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self, "batch_size", self.batch_size >= 1, "at least 1")
        require(self, "boxes_per_chunk", self.boxes_per_chunk is None or self.boxes_per_chunk >= 1, "at least 1")
        is_hex = self.sha256 is None or (len(self.sha256) == 64 and set(self.sha256.lower()) <= set("0123456789abcdef"))
        require(self, "sha256", is_hex, "64 hexadecimal digits")


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """Joining the instance masks of an image into one label map."""

    paint: Literal["detection", "score", "area", "prob"] = "score"
    """Which mask wins where several cover a pixel. detection: the later query (published). score: the higher detector
    score. area: the smaller mask. prob: the higher detector score times mask probability."""
