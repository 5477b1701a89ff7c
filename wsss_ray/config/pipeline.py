"""Configuration of the pipeline: all jobs from images to an evaluated student, in one file."""

from __future__ import annotations

from dataclasses import dataclass, field

from wsss_ray.config.evaluate import EvaluateConfig
from wsss_ray.config.label import LabelConfig
from wsss_ray.config.predict import PredictConfig
from wsss_ray.config.report import ReportConfig
from wsss_ray.config.shard import ShardConfig
from wsss_ray.config.shared import RayConfig, StorageConfig, require
from wsss_ray.config.train import TrainConfig

FOLLOWS = "(follows)"
"""Value of the fields that the pipeline fills in: folders below its output, and its classes."""


def _shard() -> ShardConfig:
    return ShardConfig(input="", output=FOLLOWS, classes=FOLLOWS)


def _train_on_truth() -> TrainConfig:
    return TrainConfig(images=FOLLOWS, output=FOLLOWS, classes=FOLLOWS, label_column="truth", preset="coco")


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig:
    """A first training on ground truth that the student starts from: the paper's VOC network starts from one trained on
    COCO's. This is full supervision. Without it, the student starts from the weights of `train.student`."""

    classes: str = "coco"
    """Class set of the first training."""
    shard: ShardConfig = field(default_factory=_shard)
    """Its images, with ground truth. `input` unset: there is no first training."""
    train: TrainConfig = field(default_factory=_train_on_truth)
    """Its training. The student's architecture must be that of `train.student`."""


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """Run all jobs from images to an evaluated student.

    The steps are shard, label, evaluate, train, predict, evaluate and report.
    Each section is the configuration of a job. Inputs and outputs follow from `output` (below it: shards/, labels/,
    student/, test-shards/, predictions/, evaluation/, gallery/); leave them out. A rerun of the same command does only
    what is missing; a step whose configuration changed is refused by name.
    """

    output: str
    """Directory or `s3://` prefix of everything that the pipeline makes."""
    classes: str = "voc"
    """Class set of all sections that do not name their own: voc, voc-raw, coco, demo, or the path of a YAML file."""
    split: str | None = None
    """Name of the training images' split for the tables, such as "train". Unset: `shard.split`."""
    shard: ShardConfig = field(default_factory=_shard)
    """Images to label and to train on; `shard.input` is needed."""
    test: ShardConfig = field(default_factory=_shard)
    """Images on which the student is evaluated. `test.input` unset: the training images, which overstates it."""
    label: LabelConfig = field(
        default_factory=lambda: LabelConfig(input=FOLLOWS, output=FOLLOWS, classes=FOLLOWS),
    )
    """Pseudo-labels of the training images."""
    pretraining: PretrainingConfig = field(default_factory=PretrainingConfig)
    """A first training on ground truth; by default none."""
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(images=FOLLOWS, output=FOLLOWS, labels=FOLLOWS, classes=FOLLOWS),
    )
    """Training on the pseudo-labels."""
    predict: PredictConfig = field(
        default_factory=lambda: PredictConfig(input=FOLLOWS, output=FOLLOWS, student=FOLLOWS),
    )
    """The student's predictions of the test images."""
    evaluate: EvaluateConfig = field(
        default_factory=lambda: EvaluateConfig(labels=FOLLOWS, images=FOLLOWS, output=FOLLOWS, classes=FOLLOWS),
    )
    """How labels and predictions are evaluated, if their shards have ground truth."""
    report: ReportConfig = field(
        default_factory=lambda: ReportConfig(labels=FOLLOWS, images=FOLLOWS, output=FOLLOWS, classes=FOLLOWS),
    )
    """The galleries of labels and predictions."""
    dry_run: bool = False
    """Check all sections against their inputs, print every step's plan with its hours (from timed samples) and bytes,
    and stop."""
    gallery: bool = True
    """Make the galleries."""
    storage: StorageConfig = field(default_factory=StorageConfig)
    """Object storage, of all sections."""
    ray: RayConfig = field(default_factory=RayConfig)
    """The one Ray session of all steps; actors, cores and GPUs of the sections that do not set their own."""

    def __post_init__(self) -> None:
        """Check that there is an output."""
        require(self, "output", bool(self.output), "a directory or s3:// prefix")
