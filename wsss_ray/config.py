"""Configuration: one frozen dataclass per job, read from a YAML file and then from flags.

This is the only module that knows the command-line library (tyro). A job calls `parse(SomeConfig, ...)`; everything
else receives the dataclass.
"""

from __future__ import annotations

import dataclasses
import difflib
import sys
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import typeguard
import tyro
import yaml

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "tf32", "bfloat16", "float16"]
ConfigT = TypeVar("ConfigT")


def require(config: object, name: str, ok: bool, rule: str) -> None:
    """Raise a ValueError that names the field, its value and the rule it breaks, unless `ok`."""
    if not ok:
        raise ValueError(f"{type(config).__name__}.{name} is {getattr(config, name)!r}: it must be {rule}.")


@dataclass(frozen=True, kw_only=True)
class StorageConfig:
    """How `s3://` is reached. Keys come from the environment, a profile or the instance's role, never from here."""

    endpoint_url: str | None = None
    """S3 endpoint for stores other than AWS (MinIO, Ceph, ...). Unset: AWS_ENDPOINT_URL, else AWS."""
    region: str | None = None
    """S3 region. Unset: AWS_DEFAULT_REGION or the profile's."""
    profile: str | None = None
    """Named profile of ~/.aws/credentials, which must then exist on every node."""


@dataclass(frozen=True, kw_only=True)
class RayConfig:
    """Where the job runs and how many actors it takes."""

    address: str | None = None
    """Address of an existing cluster ("auto", "ray://host:10001"). Unset: RAY_ADDRESS when a cluster set it (as
    `ray job submit` does), else a Ray of its own on this machine, bound to 127.0.0.1."""
    actors: int | None = None
    """Model actors (with `placement: split`: segmenters). Unset: one per GPU of the cluster, else one per core."""
    detector_actors: int | None = None
    """Detector actors with `placement: split`. Unset: a third of `actors`, at least one."""
    gpus_per_actor: float | None = None
    """GPUs each model actor holds (0.5: two share one). Unset: 1 where the cluster has GPUs, else 0."""
    cpus_per_actor: float | None = None
    """Cores each model actor holds. Unset: 1 with GPUs; without, the machine's cores divided among the actors."""
    wait_for_nodes: bool = False
    """Accept a request that the cluster cannot meet yet, because an autoscaler will add the nodes."""

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
    """auto: bfloat16 autocast on CUDA, float32 on CPU. Boxes and scores are always computed in float32."""

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
    """Expected SHA-256 of the checkpoint (64 hex digits). Required for `https://`."""
    batch_size: int = 4
    """Images the encoder takes at once."""
    boxes_per_chunk: int | None = None
    """Boxes decoded at once, over all images of a batch: bounds the decoder's memory. Unset: 64 on CUDA, 8 on CPU."""
    device: Device = "auto"
    """auto: CUDA where the actor has a GPU, else CPU."""
    precision: Precision = "auto"
    """auto: bfloat16 autocast on CUDA, float32 on CPU. The prompt encoder always runs in float32."""

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


@dataclass(frozen=True, kw_only=True)
class ShardConfig:
    """Turn a VOC tree, COCO or a folder of images with tags into Parquet image shards."""

    input: str
    """Root of the images: a VOCdevkit (or VOC2012) tree, a COCO image directory, or any folder."""
    output: str
    """Directory or `s3://` prefix for the shards."""
    source: Literal["voc", "coco", "folder"] = "folder"
    """Form of the input."""
    classes: str = "voc"
    """Class set: voc, voc-raw, coco, demo, or the path of a YAML file."""
    unknown_tags: Literal["error", "drop"] = "error"
    """What to do with a tag that is no class or alias: stop and name near matches, or drop and count it."""
    split: str | None = None
    """VOC: name of a list in ImageSets/Segmentation, or path of a list file (bare ids, `/JPEGImages/x.jpg
    /SegmentationClassAug/x.png` pairs, or `id class class`). Unset: train."""
    voc_tags: Literal["auto", "xml", "cls_labels", "masks"] = "auto"
    """VOC: where tags come from. auto: cls_labels where `tags` names a file, else XML where all images have one, else
    the masks."""
    voc_truth: str | None = None
    """VOC: folder of the truth masks below the tree. Unset: SegmentationClassAug where it has the image, else
    SegmentationClass. "none": no truth."""
    annotations: str | None = None
    """COCO: path of the instances JSON."""
    truth: str | None = None
    """Folder of truth PNGs (folder and COCO sources), named as the images. Unset: COCO rasterises its instances,
    a folder has none."""
    order: Literal["area", "json"] = "area"
    """COCO truth: paint large annotations first (area) or in the file's order (json)."""
    crowd: Literal["include", "exclude", "ignore"] = "ignore"
    """COCO truth: crowd regions are painted as their class, left out, or painted as ignore."""
    crowd_tags: bool = True
    """COCO: whether a crowd annotation gives its image a tag (as published)."""
    untagged: Literal["keep", "skip"] = "keep"
    """Images without a tag: kept (their label will be background) or left out and counted."""
    tags: str | None = None
    """Folder: CSV or JSONL of tags. VOC: path of cls_labels.npy."""
    tags_for_all: tuple[str, ...] = ()
    """Folder: these tags for every image, separated by spaces or commas, instead of a file."""
    exif: Literal["auto", "apply", "ignore"] = "auto"
    """EXIF orientation. auto: applied for folders, ignored for VOC and COCO, whose truth is on stored pixels."""
    images_per_unit: int = 32
    """Images per row group: the grain of work, retry and resume."""
    shard_mb: int = 256
    """Target size of a shard in MB (10^6 bytes)."""
    max_pixels: int = 100_000_000
    """Larger images are rejected before they are decoded."""
    max_file_mb: int = 200
    """Larger files are rejected before they are read (10^6 bytes)."""
    storage: StorageConfig = field(default_factory=StorageConfig)
    """Object storage."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Cluster."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("images_per_unit", "shard_mb", "max_pixels", "max_file_mb"):
            require(self, name, getattr(self, name) >= 1, "at least 1")


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """Label image shards: tags to boxes (Grounding DINO) to masks (SAM) to one label map per image."""

    input: str
    """Directory or `s3://` prefix of image shards, as `jobs/shard.py` writes them."""
    output: str
    """Run directory or `s3://` prefix. A rerun of the same command does only what is missing."""
    classes: str = "voc"
    """Class set: voc, voc-raw, coco, demo, or the path of a YAML file. It must share the shards' names and ids."""
    assist_words: bool | None = None
    """Whether boxes of assist words count as their class (paper, 5.3). Unset: as the class set says."""
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    """Grounding DINO."""
    segmenter: SegmenterConfig = field(default_factory=SegmenterConfig)
    """SAM."""
    fusion: FusionConfig = field(default_factory=FusionConfig)
    """Joining masks into labels."""
    placement: Literal["fused", "split"] = "fused"
    """fused: both models in one actor per GPU. split: a pool of detectors and a pool of segmenters."""
    decoded_mb: int = 512
    """Decoded pixels that one actor holds at once (MB of uint8 RGB); larger units are worked through in pieces."""
    limit: int | None = None
    """Label only the first N images, rounded up to whole units. Unset: all."""
    png: bool = False
    """Also write one PNG per image under png/, named by image id."""
    png_palette: Literal["auto", "palette", "grey"] = "auto"
    """PNG form. auto: palette for VOC-like sets, grey for COCO (as published); above 254 classes always 16-bit grey."""
    retry_failed: bool = False
    """Run the images whose rows failed again; the other rows stand."""
    dry_run: bool = False
    """Print the plan (units, pools, prompts of three images, paths, estimated hours from a timed sample) and stop."""
    status_seconds: float = 5.0
    """Seconds between status lines."""
    storage: StorageConfig = field(default_factory=StorageConfig)
    """Object storage."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Cluster and pools."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self, "limit", self.limit is None or self.limit >= 1, "at least 1")
        require(self, "decoded_mb", self.decoded_mb >= 1, "at least 1")
        require(self, "status_seconds", self.status_seconds > 0, "more than 0")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Judge labels or predictions against a ground truth: mIoU as the field counts it."""

    labels: str
    """Run directory of `jobs/label.py` or `jobs/predict.py`, or any folder of label PNGs named by image id."""
    images: str
    """Directory or `s3://` prefix of image shards: ids, sizes, and the truth where they hold it."""
    output: str
    """Directory or `s3://` prefix for the tables."""
    truth: str | None = None
    """Folder of truth PNGs named by image id. Unset: the truth in the image shards."""
    classes: str = "voc"
    """Class set: voc, voc-raw, coco, demo, or the path of a YAML file."""
    split: str | None = None
    """Name of the split for the table's head, such as "train" or "val". Unset: not stated."""
    subset: str | None = None
    """Text file of image ids, one a line, to judge these alone."""
    missing: Literal["count", "error"] = "count"
    """Images without a label or with a failed one: counted, listed and judged as background, or an error."""
    bootstrap: int = 1000
    """Resamples of images for the 95 % interval of the mIoU; 0: none."""
    boundary: bool = True
    """Also compute the boundary IoU, which costs more time than all else."""
    seed: int = 0
    """Seed of the resampling."""
    status_seconds: float = 5.0
    """Seconds between status lines."""
    storage: StorageConfig = field(default_factory=StorageConfig)
    """Object storage."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Cluster."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self, "bootstrap", self.bootstrap >= 0, "0 or more")
        require(self, "status_seconds", self.status_seconds > 0, "more than 0")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write labels in the forms that other tools read."""

    labels: str
    """Run directory of `jobs/label.py` or `jobs/predict.py`."""
    images: str
    """Directory or `s3://` prefix of the image shards that were labelled."""
    output: str
    """Directory or `s3://` prefix; it must be empty or hold an earlier call of the same export."""
    format: Literal["voc", "coco-instances", "coco-panoptic", "coco-semantic", "yolo-seg", "huggingface", "voc-test"]
    """voc: tree of palette PNGs and ImageSets. coco-instances: JSON with RLE, boxes, scores and COCO category ids.
    coco-panoptic, coco-semantic: PNGs and JSON. yolo-seg: polygons. huggingface: Parquet with image and label features.
    voc-test: the archive that the VOC test server takes."""
    classes: str = "voc"
    """Class set: voc, voc-raw, coco, demo, or the path of a YAML file."""
    split: str = "train"
    """Name of the split in file and folder names."""
    copy_images: bool = True
    """Also write the images, where the format has a place for them."""
    storage: StorageConfig = field(default_factory=StorageConfig)
    """Object storage."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Cluster."""


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """Rank the images of a labelling run that deserve a look, by what the labels themselves tell."""

    labels: str
    """Run directory of `jobs/label.py`."""
    images: str
    """Directory or `s3://` prefix of the image shards that were labelled."""
    output: str
    """Directory or `s3://` prefix for audit.parquet and audit.json."""
    classes: str = "voc"
    """Class set: voc, voc-raw, coco, demo, or the path of a YAML file."""
    largest_share: float = 0.95
    """A class that covers more of an image than this is suspicious (0 to 1)."""
    smallest_share: float = 0.001
    """A class that covers less of an image than this is suspicious (0 to 1)."""
    same_object_iou: float = 0.8
    """Boxes of different classes that overlap more than this IoU are taken for one object."""
    low_mask_score: float = 0.7
    """SAM's predicted IoU below which a mask is suspicious."""
    near_threshold: float = 0.03
    """Detector scores less than this above the threshold are suspicious."""
    against_truth: bool = False
    """Where the shards hold human labels: also rank the places where they and SAM's masks disagree most (paper, 5.2)."""
    storage: StorageConfig = field(default_factory=StorageConfig)
    """Object storage."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Cluster."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("largest_share", "smallest_share", "same_object_iou", "low_mask_score", "near_threshold"):
            require(self, name, 0 <= getattr(self, name) <= 1, "from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Make one static HTML gallery of labels: a folder that opens from disk or a bucket."""

    labels: str
    """Run directory of `jobs/label.py` or `jobs/predict.py`."""
    images: str
    """Directory or `s3://` prefix of the image shards that were labelled."""
    output: str
    """Directory or `s3://` prefix for the gallery; open its index.html."""
    classes: str = "voc"
    """Class set: voc, voc-raw, coco, demo, or the path of a YAML file."""
    audit: str | None = None
    """Output of `jobs/audit.py`, to sort by its rank."""
    sample: int | None = None
    """Show this many images, drawn by `seed`. Unset: all."""
    seed: int = 0
    """Seed of the sample."""
    images_per_page: int = 60
    """Images on one page."""
    thumbnail: int = 256
    """Longest side of a thumbnail, in pixels."""
    title: str = "wsss_ray labels"
    """Title of the gallery."""
    storage: StorageConfig = field(default_factory=StorageConfig)
    """Object storage."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Cluster."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self, "sample", self.sample is None or self.sample >= 1, "at least 1")
        require(self, "images_per_page", self.images_per_page >= 1, "at least 1")
        require(self, "thumbnail", self.thumbnail >= 32, "at least 32")


class ConfigError(ValueError):
    """A configuration file or flag that cannot be used; the text says where and what is valid."""


def parse(config_type: type[ConfigT], argv: Sequence[str] | None = None) -> ConfigT:
    """Read `--config FILE.yaml`, if given, then the flags, which win.

    Prints help or the error and exits, as a command line does (status 2 for bad input).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    description = (
        f"{typing.cast(str, config_type.__doc__).strip()}\n\n--config FILE.yaml reads the same fields from YAML "
        "(nested as the flags' dots show); flags given beside it win."
    )
    try:
        path, arguments = _take_config_flag(arguments)
        values = {} if path is None else _read_yaml(Path(path))
        default = _build(config_type, values, where=str(path), prefix="")
        return tyro.cli(config_type, args=arguments, default=default, description=description)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except ValueError as error:  # a range check of a dataclass
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _take_config_flag(arguments: list[str]) -> tuple[str | None, list[str]]:
    for index, argument in enumerate(arguments):
        if argument == "--config":
            if index + 1 == len(arguments):
                raise ConfigError("--config needs the path of a YAML file after it.")
            return arguments[index + 1], arguments[:index] + arguments[index + 2 :]
        if argument.startswith("--config="):
            return argument.removeprefix("--config="), arguments[:index] + arguments[index + 1 :]
    return None, arguments


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold `key: value` lines, not a {type(values).__name__}.")
    return values


def _build(config_type: type[ConfigT], values: Mapping[str, Any], *, where: str, prefix: str) -> ConfigT:
    """Make the dataclass from YAML values; fields that neither YAML nor a default gives are left to the flags."""
    hints = typing.get_type_hints(config_type)
    fields = {item.name: item for item in dataclasses.fields(config_type)}  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f" Did you mean `{prefix}{near[0]}`?" if near else ""
            raise ConfigError(f"{where}: unknown key `{prefix}{key}`.{hint} Valid: {', '.join(fields)}.")
        if name in arguments:
            raise ConfigError(f"{where}: `{prefix}{name}` is given twice.")
        arguments[name] = _convert(value, hints[name], where=where, key=prefix + name)
    for item in fields.values():
        if (
            item.name not in arguments
            and item.default is dataclasses.MISSING
            and item.default_factory is dataclasses.MISSING
        ):
            arguments[item.name] = tyro.MISSING
    try:
        return config_type(**arguments)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}" if values else str(error)) from error


def _convert(value: Any, hint: Any, *, where: str, key: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: `{key}` must hold `key: value` lines, not {value!r}.")
        return _build(typing.cast(type, hint), value, where=where, prefix=f"{key}.")
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(value, int) and not isinstance(value, bool) and float in (hint, *typing.get_args(hint)):
        value = float(value)
    try:
        return typeguard.check_type(value, hint)
    except typeguard.TypeCheckError as error:
        raise ConfigError(f"{where}: `{key}: {value}`: {error}.") from error
