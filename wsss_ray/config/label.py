"""Configuration of the labelling job."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from wsss_ray.config.models import DetectorConfig, FusionConfig, SegmenterConfig
from wsss_ray.config.shared import Input, RayConfig, StorageConfig, given, require, require_registered


@dataclass(frozen=True, kw_only=True)
class LabellerConfig:
    """What decides the label of an image: classes, models and fusion."""

    classes: str = "voc"
    """Class set: voc, voc-raw, coco, demo, or the path of a YAML file. It must share the shards' names and ids."""
    assist_words: bool | None = None
    """Whether boxes of assist words count as their class (paper, 5.3). Unset: as the class set says."""
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    """The detector: phrases to boxes."""
    segmenter: SegmenterConfig = field(default_factory=SegmenterConfig)
    """The segmenter: boxes to masks."""
    columns: tuple[str, ...] = ()
    """Extra columns of the label files: names that an installed package registers."""
    fusion: FusionConfig = field(default_factory=FusionConfig)
    """How masks are joined into a label map."""
    storage: StorageConfig = field(default_factory=StorageConfig)
    """Object storage."""

    def __post_init__(self) -> None:
        """Check that the extra columns exist."""
        if self.columns:
            from wsss_ray.shards.columns import LABEL_COLUMNS  # noqa: PLC0415 - it imports this module

            require_registered(self, "columns", LABEL_COLUMNS)


@dataclass(frozen=True, kw_only=True)
class LabelConfig(LabellerConfig):
    """Label image shards: tags to boxes (Grounding DINO) to masks (SAM) to one label map per image."""

    input: str
    """Directory or `s3://` prefix of image shards, as `wsss-ray shard` writes them."""
    output: str
    """Run directory or `s3://` prefix. A rerun of the same command does only what is missing."""
    placement: Literal["fused", "split"] = "fused"
    """fused: both models in one actor per GPU. split: a pool of detectors and a pool of segmenters."""
    decoded_mb: int = 512
    """Decoded pixels (MB of uint8 RGB) of a unit in progress; an actor has three. Larger units are divided."""
    limit: int | None = None
    """Label only the first N images, rounded up to whole units. Unset: all."""
    png: bool = False
    """Also write one PNG per image under png/, named by image id."""
    png_palette: Literal["auto", "palette", "grey"] = "auto"
    """PNG form. auto: palette for VOC-like sets, grey for COCO (as published); above 254 classes always 16-bit grey."""
    retry_failed: bool = False
    """Run the images whose rows failed again; the other rows are kept."""
    profile: bool = False
    """Write Chrome traces of an actor's first unit and of a later one to profile/ in the output, for chrome://tracing
    or ui.perfetto.dev."""
    dry_run: bool = False
    """Print the plan (units, pools, prompts of three images, paths, estimated hours from a timed sample) and stop."""
    status_seconds: float = 5.0
    """Seconds between status lines."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Cluster and pools."""

    def inputs(self) -> tuple[Input, ...]:
        """Return what the job reads."""
        return given(
            ("--input", self.input, "folder"),
            ("--detector.model", None if self.detector.model == "demo" else self.detector.model, "folder"),
            ("--segmenter.checkpoint", self.segmenter.checkpoint, "file"),
        )

    def __post_init__(self) -> None:
        """Check ranges, and that the extra columns exist."""
        super().__post_init__()
        require(self, "limit", self.limit is None or self.limit >= 1, "at least 1")
        require(self, "decoded_mb", self.decoded_mb >= 1, "at least 1")
        require(self, "status_seconds", self.status_seconds > 0, "more than 0")
