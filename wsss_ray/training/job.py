"""The training job: labels in, a trained student out, resumable to the same result."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from wsss_ray.classes import ClassSet
from wsss_ray.config.train import TrainConfig
from wsss_ray.engine.cluster import connect, machine_has_gpus, uses_cluster, warn_of_local_paths
from wsss_ray.engine.resources import uses_gpus
from wsss_ray.engine.run_directory import claim
from wsss_ray.labels.run import damage_error
from wsss_ray.labels.scores import ClassIndex
from wsss_ray.shards.image_shards import ShardSet, check_label_space, read_shard_set
from wsss_ray.storage import retries
from wsss_ray.storage.storage import Storage
from wsss_ray.training.history import METRICS_FILE, read_metrics
from wsss_ray.training.initial_weights import STUDENT_FILE, student_weights_digest
from wsss_ray.training.order import Order
from wsss_ray.training.plan import describe, identity, lay_out
from wsss_ray.training.saved import FOLDER, list_checkpoints
from wsss_ray.training.sources import LabelPlan, Survey, open_labels, survey

if TYPE_CHECKING:
    from wsss_ray.training.board import State  # needs Ray
    from wsss_ray.training.validation import Validation  # needs PyTorch

SUMMARY_FILE = "summary.json"


@dataclass(frozen=True, kw_only=True)
class Run:
    """What all steps of one call need."""

    config: TrainConfig
    classes: ClassSet
    images: Storage
    shards: ShardSet
    labels: LabelPlan
    found: Survey
    order: Order
    validation: Validation | None
    validation_shards: ShardSet | None
    output: Storage
    retried_before: Counter[str]
    """Requests to stores that were made again before this call."""


def run(config: TrainConfig) -> dict[str, Any]:
    """Train a student as configured, or go on from the last checkpoint in `config.output`.

    Returns:
        The summary, as `summary.json` holds it.

    Raises:
        ValueError: input, output or configuration cannot be used together; nothing was changed.
        JobError: training broke off; the last checkpoint stands.
    """
    job = _prepare(config)
    if job.output.exists(STUDENT_FILE) and not uses_cluster(config.ray):  # no Ray is started to find nothing to do
        _claim(job, has_gpus=config.device != "cpu" and uses_gpus(config.ray, float(machine_has_gpus())))
        return _nothing_to_do(job)
    with connect(config.ray) as resources:
        layout = lay_out(config, resources)
        _claim(job, has_gpus=layout.workers.gpus > 0)
        if job.output.exists(STUDENT_FILE):
            return _nothing_to_do(job)
        from wsss_ray.training.session import broken_off, train  # noqa: PLC0415 - PyTorch and Ray Train

        warn_of_local_paths(resources, job.images, job.output)
        checkpoints = list_checkpoints(job.output)
        start = checkpoints[-1] if checkpoints else 0
        print(describe(config, job.order, job.found, layout, start=start), flush=True)
        state = train(job, layout)
        if not job.output.exists(STUDENT_FILE):
            raise broken_off(f"it ended without {job.output.describe(STUDENT_FILE)}")
        return _checked(job, _finish(job, state))


def _claim(job: Run, *, has_gpus: bool) -> None:
    """Claim the output or join the run that is there."""
    content = identity(
        job.config, job.classes, job.shards, job.found, validation=job.validation_shards, has_gpus=has_gpus
    )
    if claim(job.output, content, results=FOLDER):
        print(f"started the run in {job.output.uri}", flush=True)


def _nothing_to_do(job: Run) -> dict[str, Any]:
    print(f"nothing to do: {job.output.describe(STUDENT_FILE)} is trained", flush=True)
    return _checked(job, _finish(job, None))


def _checked(job: Run, summary: dict[str, Any]) -> dict[str, Any]:
    """Return the summary; JobError where label files are damaged: the student is trained without their images."""
    if (error := damage_error(job.found.damaged)) is not None:
        raise error
    return summary


def _prepare(config: TrainConfig) -> Run:
    """Read what there is, and check that it fits together, before anything starts."""
    retried_before = retries.counted()
    classes = ClassSet.load(config.classes)
    student_weights_digest(config.student, config.storage)  # refuses weights that are not there
    images = Storage(config.images, config.storage)
    shards = read_shard_set(images)
    check_label_space(shards, classes)
    labels = open_labels(config, shards)
    found = survey(labels, images, shards, unusable=config.unusable)
    order = Order(
        rows=[unit.rows for unit in shards.units],
        left_out=found.left_out,
        seed=config.seed,
        batch_size=config.recipe.batch_size,
        window=config.shuffle_window,
    )
    validation, validation_shards = _open_validation(config, classes)
    return Run(
        config=config,
        classes=classes,
        images=images,
        shards=shards,
        labels=labels,
        found=found,
        order=order,
        validation=validation,
        validation_shards=validation_shards,
        output=Storage(config.output, config.storage),
        retried_before=retried_before,
    )


def _open_validation(config: TrainConfig, classes: ClassSet) -> tuple[Validation | None, ShardSet | None]:
    if config.validation is None:
        return None, None
    images = Storage(config.validation, config.storage)
    shards = read_shard_set(images)
    check_label_space(shards, classes)
    if not shards.has_truth:
        raise ValueError(f"the image shards in {images.uri} hold no ground truth to validate on.")
    units, rows = [], 0
    for unit in shards.units:
        if config.validation_limit is not None and rows >= config.validation_limit:
            break
        units.append(unit)
        rows += unit.rows
    index = ClassIndex.of(classes)
    from wsss_ray.training.validation import Validation  # noqa: PLC0415 - PyTorch, which a finished run does without

    return Validation(images=images, units=units, index=index, ignore_id=classes.ignore_id), shards


def _finish(job: Run, state: State | None) -> dict[str, Any]:
    """Write the summary, and print it."""
    rows = read_metrics(job.output)
    mious = [row.miou for row in rows if row.miou is not None]
    before = _read_summary(job.output)
    summary: dict[str, Any] = {
        "iterations": rows[-1].iteration if rows else 0,
        "loss": rows[-1].loss if rows else None,
        "validation_miou": mious[-1] if mious else None,
        "images": job.order.epoch_samples,
        "left_out": {reason: count for reason, count in job.found.reasons.items() if count},
        "student": job.output.describe(STUDENT_FILE),
        "metrics": job.output.describe(METRICS_FILE),
    }
    if state is None:
        session = before.get("session")
        unusable = before.get("unusable", {})
    else:
        unusable = {**before.get("unusable", {}), **state.unusable}
        session = {
            "iterations_per_second": state.rate,
            "images_per_second": state.rate * job.config.recipe.batch_size,
            "restarts": max(len(state.starts) - 1, 0),
            "storage_retries": dict(sorted((retries.counted() - job.retried_before).items())),
        }
    summary |= {"unusable": unusable, "session": session}
    job.output.write(SUMMARY_FILE, (json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode())
    miou = "" if summary["validation_miou"] is None else f", validation mIoU {summary['validation_miou']:.3f}"
    loss = "" if summary["loss"] is None else f", loss {summary['loss']:.3f}"
    print(f"{summary['iterations']:,} iterations{loss}{miou}; the student is {summary['student']}", flush=True)
    return summary


def _read_summary(output: Storage) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", json.loads(output.read(SUMMARY_FILE)))
    except FileNotFoundError:
        return {}
