"""The plan of a pipeline: its sections, with all fields filled in that follow from its output."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from wsss_ray.config import EvaluateConfig, LabelConfig, RayConfig, ReportConfig, ShardConfig, StorageConfig
from wsss_ray.config.pipeline import FOLLOWS, PipelineConfig
from wsss_ray.config.predict import PredictConfig
from wsss_ray.config.student import StudentConfig
from wsss_ray.config.train import TrainConfig
from wsss_ray.models.student.header import STUDENT_FILE
from wsss_ray.storage.storage import Storage


class _Section(Protocol):
    """Fields that all sections have."""

    __dataclass_fields__: Any
    storage: StorageConfig
    ray: RayConfig


SectionT = TypeVar("SectionT", bound=Any)


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """Configurations that evaluate and show labels or predictions."""

    evaluate: EvaluateConfig
    report: ReportConfig


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a pipeline."""

    name: str
    """Name of the step, as it is printed."""
    job: str
    """Name of the job that it runs."""
    config: Any
    """Configuration of the job."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The sections of a pipeline, each as the configuration of its job; None for a step that it does not have."""

    shard: ShardConfig
    label: LabelConfig
    labels: Evaluated
    test: ShardConfig | None
    pretraining_shard: ShardConfig | None
    pretraining: TrainConfig | None
    train: TrainConfig
    predict: PredictConfig
    predictions: Evaluated

    def steps(self, *, gallery: bool) -> list[Step]:
        """Return the steps in their order, the galleries only if they are wanted."""
        steps = [
            ("shard", "shard", self.shard),
            ("label", "label", self.label),
            ("evaluate labels", "evaluate", self.labels.evaluate),
            ("shard test images", "shard", self.test),
            ("shard pretraining images", "shard", self.pretraining_shard),
            ("pretraining", "train", self.pretraining),
            ("train", "train", self.train),
            ("predict", "predict", self.predict),
            ("evaluate predictions", "evaluate", self.predictions.evaluate),
            ("report labels", "report", self.labels.report if gallery else None),
            ("report predictions", "report", self.predictions.report if gallery else None),
        ]
        return [Step(name=name, job=job, config=config) for name, job, config in steps if config is not None]


def make_plan(config: PipelineConfig) -> Plan:
    """Fill in what follows from the pipeline's output, classes, storage and Ray.

    Raises:
        ValueError: a section contradicts them, or lacks its images; names the key and what to do.
    """
    root = Storage(config.output, config.storage)
    if not config.shard.input:
        raise ValueError("`shard.input` is unset: a pipeline needs images to label and to train on.")
    shards, labels, student = (root.describe(name) for name in ("shards", "labels", "student"))
    test = None
    if config.test.input:
        test = _fill(config, "test", config.test, output=root.describe("test-shards"))
    test_shards = shards if test is None else test.output
    predictions = root.describe("predictions")
    pretraining_shard, pretraining, started = _plan_pretraining(config, root)
    if config.train.label_folder is not None or config.train.label_column == "truth":  # instead of the step's labels
        if config.train.labels != FOLLOWS:
            raise ValueError(
                "`train.labels` is set beside `train.label_folder` or `train.label_column: truth`: leave it out."
            )
        section = dataclasses.replace(config.train, labels=None)
        train = _fill(config, "train", section, images=shards, output=student)
    else:
        train = _fill(config, "train", config.train, images=shards, output=student, labels=labels)
    split = config.split or config.shard.split
    return Plan(
        shard=_fill(config, "shard", config.shard, output=shards),
        label=_fill(config, "label", config.label, input=shards, output=labels),
        labels=_evaluated(config, root, "labels", labels=labels, images=shards, split=split),
        test=test,
        pretraining_shard=pretraining_shard,
        pretraining=pretraining,
        train=train if started is None else dataclasses.replace(train, student=started),
        predict=_fill(config, "predict", config.predict, input=test_shards, output=predictions, student=student),
        predictions=_evaluated(
            config,
            root,
            "predictions",
            labels=predictions,
            images=test_shards,
            split=split if test is None else test.split,
        ),
    )


def _plan_pretraining(
    config: PipelineConfig, root: Storage
) -> tuple[ShardConfig | None, TrainConfig | None, StudentConfig | None]:
    """Return the shards and training of the first student, and the second student that starts from it; None without."""
    first, second = config.pretraining, config.train.student
    if not first.shard.input:
        return None, None, None
    home = root.child("pretraining")
    shard = _fill(config, "pretraining.shard", first.shard, output=home.describe("shards"), classes=first.classes)
    train = _fill(
        config,
        "pretraining.train",
        first.train,
        images=shard.output,
        output=home.describe("student"),
        classes=first.classes,
    )
    if train.label_column != "truth":
        raise ValueError("`pretraining.train.label_column` must be truth: the first training is on ground truth.")
    if train.student.architecture != second.architecture:
        raise ValueError(
            f"`train.student.architecture` is {second.architecture}, but its first training is of "
            f"{train.student.architecture}: give both the same."
        )
    weights = f"{train.output}/{STUDENT_FILE}"
    if second.weights not in (None, FOLLOWS, weights):
        raise ValueError(
            f"`train.student.weights` is {second.weights!r}, but with `pretraining` the student starts from {weights}: "
            "leave it out, or leave out `pretraining.shard`."
        )
    started = dataclasses.replace(second, init="checkpoint", weights=weights, geometry="auto", sha256=None)
    return shard, train, started


def _evaluated(
    config: PipelineConfig, root: Storage, name: str, *, labels: str, images: str, split: str | None
) -> Evaluated:
    if config.evaluate.split is not None:
        raise ValueError(
            "`evaluate.split` names one split, but two sets are evaluated: give `split`, `shard.split`, ..."
        )
    evaluate = _fill(
        config, "evaluate", config.evaluate, labels=labels, images=images, output=root.describe(f"evaluation/{name}")
    )
    report = _fill(
        config, "report", config.report, labels=labels, images=images, output=root.describe(f"gallery/{name}")
    )
    title = f"{report.title}: {name}"
    return Evaluated(
        evaluate=dataclasses.replace(evaluate, split=split), report=dataclasses.replace(report, title=title)
    )


def _fill(
    config: PipelineConfig, name: str, section: SectionT, *, classes: str | None = None, **paths: str
) -> SectionT:
    """Return a section with its inputs and outputs, and the pipeline's classes, storage and address of Ray."""
    for key, value in paths.items():
        given = getattr(section, key)
        if given not in (FOLLOWS, value):
            raise ValueError(
                f"`{name}.{key}` is {given!r}, but in a pipeline it follows from `output`: {value!r}. Leave it out."
            )
    if section.storage not in (StorageConfig(), config.storage):
        raise ValueError(f"`{name}.storage` differs from the pipeline's `storage`: leave it out.")
    if section.ray.address not in (None, config.ray.address):
        raise ValueError(
            f"`{name}.ray.address` is set, but all steps share the pipeline's session: give `ray.address`."
        )
    filled: dict[str, Any] = dict(paths)
    if getattr(section, "classes", None) == FOLLOWS:
        filled["classes"] = classes or config.classes
    filled["storage"] = config.storage
    filled["ray"] = _join(section.ray, config.ray)
    return dataclasses.replace(section, **filled)


def _join(section: RayConfig, pipeline: RayConfig) -> RayConfig:
    """Return the section's settings of Ray, completed by the pipeline's."""
    given = {name: value for name, value in vars(section).items() if value != getattr(RayConfig(), name)}
    return dataclasses.replace(pipeline, **given)
