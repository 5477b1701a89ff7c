"""Configuration of the labelling job."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from wsss_ray.config.models import DetectorConfig, FusionConfig, SegmenterConfig
from wsss_ray.config.shared import Input, LabelRunConfig, StorageConfig, given, require_registered


@dataclass(frozen=True, kw_only=True)
class LabellerConfig:
    """Configure a `Labeller`: the classes, models and fusion that decide the label of an image."""

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
class LabelConfig(LabellerConfig, LabelRunConfig):
    """Label image shards: tags to boxes (Grounding DINO) to masks (SAM) to one label map per image."""

    placement: Literal["fused", "split"] = "fused"
    """fused: both models in one actor per GPU. split: a pool of detectors and a pool of segmenters."""

    def inputs(self) -> tuple[Input, ...]:
        """Return what the job reads."""
        return given(
            ("--input", self.input, "folder"),
            ("--detector.model", None if self.detector.model == "demo" else self.detector.model, "folder"),
            ("--segmenter.checkpoint", self.segmenter.checkpoint, "file"),
        )

    def __post_init__(self) -> None:
        """Check ranges, and that the extra columns exist."""
        LabellerConfig.__post_init__(self)
        LabelRunConfig.__post_init__(self)
