"""Check a pipeline before its first step, so that mistakes are found before hours of work."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from wsss_ray.classes import ClassSet
from wsss_ray.config import EvaluateConfig, LabelConfig, RayConfig, ReportConfig, ShardConfig
from wsss_ray.config.train import TrainConfig
from wsss_ray.datasets.items import Listing
from wsss_ray.datasets.manifest import read_text
from wsss_ray.datasets.source import SOURCES
from wsss_ray.engine.outputs import check_output
from wsss_ray.engine.resources import Resources, check_pools, model_pool
from wsss_ray.errors import JobError
from wsss_ray.labelling.weights import check_weights
from wsss_ray.labels.inputs import find_pngs
from wsss_ray.labels.selection import ImageSelection
from wsss_ray.pipeline.plan import Plan, Step
from wsss_ray.report.overview import read_audit
from wsss_ray.sharding.plan import classes_of, items_of
from wsss_ray.shards.image_shards import check_label_space, read_shard_set
from wsss_ray.storage.errors import StorageError
from wsss_ray.storage.storage import Storage
from wsss_ray.training.initial_weights import check_initial_weights
from wsss_ray.training.plan import allocate, check_batch


def in_step(name: str, work: Callable[[], Any]) -> Any:
    """Return what the work returns; the text of its errors begins with the step's name."""
    try:
        return work()
    except JobError as error:
        raise JobError(f"step {name}: {error}") from error
    except StorageError as error:
        raise StorageError(f"step {name}: {error}") from error
    except ValueError as error:
        raise ValueError(f"step {name}: {error}") from error


def check_steps(plan: Plan, steps: list[Step]) -> dict[str, Listing]:
    """Check every step against its inputs and return the images of each sharding step, by the step's name.

    Images and annotations are listed, truths and lists are opened, the weights' digests and networks are compared, and
    no output may touch an input. Nothing is written.

    Raises:
        ValueError: a section cannot be used; names the step.
        StorageError: a store or file cannot be read; names the step.
    """
    for step in steps:
        in_step(step.name, partial(check_output, step.config, job=step.job))
        config = step.config
        if step.name == "train" and plan.pretraining is not None:  # its weights come from the first training
            config = dataclasses.replace(config, student=plan.pretraining.student)
        if step.job in _CHECKS:
            in_step(step.name, partial(_CHECKS[step.job], config))
    in_step("label", partial(_check_classes, plan.label.classes, plan.shard))
    for name, training, shard in (
        ("train", plan.train, plan.shard),
        ("pretraining", plan.pretraining, plan.pretraining_shard),
    ):
        if training is not None and shard is not None:
            in_step(name, partial(_check_classes, training.classes, shard))
    if (test := plan.test) is not None:
        in_step("predict", partial(_check_classes, plan.train.classes, test))
    shards = [step for step in steps if step.job == "shard"]
    return {step.name: in_step(step.name, partial(list_images, step.config)) for step in shards}


def check_resources(plan: Plan, resources: Resources) -> None:
    """Check that the cluster can hold the actors and workers of every step.

    Raises:
        ValueError: names the step, what it needs and what the cluster has.
    """
    for name, training in (("pretraining", plan.pretraining), ("train", plan.train)):
        if training is not None:
            in_step(name, partial(allocate, training, resources))
    for name, config in (("label", plan.label), ("predict", plan.predict)):
        in_step(name, partial(_check_pool, config.ray, resources))


def _check_pool(config: RayConfig, resources: Resources) -> None:
    check_pools([model_pool(config, resources)], resources, config)


def list_images(config: ShardConfig) -> Listing:
    """Return the images of a sharding step, without reading one."""
    listing = SOURCES.get(config.source)().list_images(config, classes_of(config))
    items_of(config, listing)
    return listing


def _check_label(config: LabelConfig) -> None:
    ClassSet.load(config.classes, assist_words=config.assist_words)
    check_weights(config)


def _check_training(config: TrainConfig) -> None:
    classes = ClassSet.load(config.classes)
    if config.ray.actors is not None:
        check_batch(config, config.ray.actors)
    if config.label_folder is not None:
        find_pngs(Storage(config.label_folder, config.storage), what="labels")
    ImageSelection.read(only=config.only, exclude=config.exclude, storage=config.storage)
    if config.validation is not None:
        shards = read_shard_set(Storage(config.validation, config.storage))
        check_label_space(shards, classes)
    check_initial_weights(config.student, classes, config.storage)


def _check_evaluation(config: EvaluateConfig) -> None:
    ClassSet.load(config.classes)
    if config.truth is not None:
        find_pngs(Storage(config.truth, config.storage), what="truth")
    if config.subset is not None:
        read_text(config.subset, config.storage, what="list of image ids")
    if config.coco_annotations is not None:
        read_text(config.coco_annotations, config.storage, what="COCO annotations")


def _check_report(config: ReportConfig) -> None:
    if config.audit is not None:
        read_audit(Storage(config.audit, config.storage))


_CHECKS: dict[str, Callable[[Any], None]] = {
    "label": _check_label,
    "train": _check_training,
    "evaluate": _check_evaluation,
    "report": _check_report,
}


def _check_classes(name: str, shard: ShardConfig) -> None:
    """Refuse a class set with other names or ids than the shards will have."""
    there = classes_of(shard)
    if ClassSet.load(name).label_space_digest != there.label_space_digest:
        raise ValueError(
            f"the class set {name} has other names or ids than {there.name}, of which the image shards will be."
        )
