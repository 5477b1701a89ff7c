"""The training job: train a student on labels, resumable to the same result.

A run that is already finished needs neither Ray nor PyTorch, and imports neither.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wsss_ray.classes import ClassSet
from wsss_ray.config.train import TrainConfig
from wsss_ray.engine.outputs import check_output
from wsss_ray.engine.run_directory import RUN_FILE, RunDirectory
from wsss_ray.labels.run import damage_error
from wsss_ray.labels.scores import ClassIndex
from wsss_ray.labels.selection import ImageSelection
from wsss_ray.models.precision import decide
from wsss_ray.models.student.header import STUDENT_FILE
from wsss_ray.shards.image_shards import ShardSet, check_label_space, read_shard_set
from wsss_ray.storage import retries
from wsss_ray.storage.json_files import encode_json, read_json
from wsss_ray.storage.storage import Storage
from wsss_ray.training.checkpoint_files import FOLDER, list_checkpoints
from wsss_ray.training.identity import identity
from wsss_ray.training.initial_weights import check_initial_weights, student_weights_digest
from wsss_ray.training.metrics import METRICS_FILE, read_metrics
from wsss_ray.training.order import Order
from wsss_ray.training.sources import LabelPlan, Survey, open_labels, survey
from wsss_ray.training.validation import Validation

if TYPE_CHECKING:
    from wsss_ray.training.monitor import TrainingState

SUMMARY_FILE = "summary.json"


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """Inputs and settings that all steps of a training share."""

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
    """Requests to stores that were repeated before this run."""

    def decided(self, *, has_gpus: bool, has_bfloat16: bool) -> TrainingRun:
        """Return the training with its device and precision in place of `auto`, on workers with or without GPUs."""
        return replace(self, config=decide(self.config, has_gpus=has_gpus, has_bfloat16=has_bfloat16))

    def identity(self) -> dict[str, Any]:
        """Return the identity of the run, whose device and precision are decided."""
        return identity(self.config, self.classes, self.shards, self.found, validation=self.validation_shards)


def run(config: TrainConfig) -> dict[str, Any]:
    """Train a student, or continue from the last checkpoint in `config.output`.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        ValueError: input, output or configuration do not fit together; nothing was changed.
        JobError: training was interrupted, and the last checkpoint is kept; or label files are damaged.
    """
    training = _prepare(config)
    state = None
    if _is_finished(training):
        print(f"nothing to do: {training.output.describe(STUDENT_FILE)} is trained", flush=True)
    else:
        state = _train(training)
    summary = _write_summary(training, state)
    if (error := damage_error(training.found.damaged)) is not None:
        raise error  # the student is trained without the images of these files
    return summary


def _prepare(config: TrainConfig) -> TrainingRun:
    """Read the inputs and check that they fit together, before anything starts."""
    check_output(config, job="train")
    retried_before = retries.counted()
    classes = ClassSet.load(config.classes)
    student_weights_digest(config.student, config.storage)  # refuses weights that do not exist
    images = Storage(config.images, config.storage)
    shards = read_shard_set(images)
    check_label_space(shards, classes)
    labels = open_labels(config, shards)
    selection = ImageSelection.read(only=config.only, exclude=config.exclude, storage=config.storage)
    found = survey(labels, images, shards, unusable=config.unusable, selection=selection)
    order = Order(
        rows=[unit.rows for unit in shards.units],
        left_out=found.left_out,
        seed=config.seed,
        batch_size=config.recipe.batch_size,
        window=config.shuffle_window,
    )
    validation, validation_shards = _open_validation(config, classes)
    return TrainingRun(
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
    return Validation(images=images, units=units, index=index, ignore_id=classes.ignore_id), shards


def _is_finished(training: TrainingRun) -> bool:
    """Return whether the output holds the student of this configuration, whatever device it was trained on."""
    output = training.output
    if not (output.exists(STUDENT_FILE) and output.exists(RUN_FILE)):
        return False
    recorded = RunDirectory(storage=output).read_identity()
    hardware = ((True, True), (True, False), (False, False))
    trainings = (training.decided(has_gpus=gpus, has_bfloat16=bfloat16) for gpus, bfloat16 in hardware)
    return any(recorded == json.loads(json.dumps(one.identity())) for one in trainings)


def _train(training: TrainingRun) -> TrainingState | None:
    """Claim the output and run the workers to the end; return their last state."""
    from wsss_ray.engine.cluster import connect, warn_of_local_paths  # noqa: PLC0415 - a finished run needs no Ray
    from wsss_ray.training.plan import allocate, describe  # noqa: PLC0415
    from wsss_ray.training.session import broken_off, train  # noqa: PLC0415 - it imports PyTorch

    config, output = training.config, training.output
    check_initial_weights(config.student, training.classes, config.storage)
    with connect(config.ray) as resources:
        allocation = allocate(config, resources)
        directory = RunDirectory(storage=output, content="checkpoints", content_paths=(FOLDER, STUDENT_FILE))
        training = training.decided(has_gpus=allocation.workers.gpus > 0, has_bfloat16=resources.has_bfloat16)
        content = training.identity()
        if directory.claim(content):
            print(f"started the run in {output.uri}", flush=True)
        warn_of_local_paths(resources, training.images, output)
        checkpoints = list_checkpoints(output)
        start = checkpoints[-1] if checkpoints else 0
        print(describe(config, training.order, training.found, allocation, start=start), flush=True)
        with directory.at_work(content):
            state = train(training, allocation)
        if not output.exists(STUDENT_FILE):
            raise broken_off(f"it ended without {output.describe(STUDENT_FILE)}")
        return state


def _write_summary(training: TrainingRun, state: TrainingState | None) -> dict[str, Any]:
    """Write the summary and print it."""
    output = training.output
    rows = read_metrics(output)
    mious = [row.miou for row in rows if row.miou is not None]
    before = _read_summary(output)
    summary: dict[str, Any] = {
        "iterations": rows[-1].iteration if rows else 0,
        "loss": rows[-1].loss if rows else None,
        "validation_miou": mious[-1] if mious else None,
        "images": training.order.epoch_samples,
        "left_out": {reason: count for reason, count in training.found.reasons.items() if count},
        "student": output.describe(STUDENT_FILE),
        "metrics": output.describe(METRICS_FILE),
    }
    if state is None:
        session = before.get("session")
        unusable = before.get("unusable", {})
    else:
        unusable = {**before.get("unusable", {}), **state.unusable}
        session = {
            "iterations_per_second": state.rate,
            "images_per_second": state.rate * training.config.recipe.batch_size,
            "restarts": max(len(state.starts) - 1, 0),
            "storage_retries": dict(sorted((retries.counted() - training.retried_before).items())),
        }
    summary |= {"unusable": unusable, "session": session}
    output.write(SUMMARY_FILE, encode_json(summary))
    miou = "" if summary["validation_miou"] is None else f", validation mIoU {summary['validation_miou']:.3f}"
    loss = "" if summary["loss"] is None else f", loss {summary['loss']:.3f}"
    print(f"{summary['iterations']:,} iterations{loss}{miou}; the student is {summary['student']}", flush=True)
    return summary


def _read_summary(output: Storage) -> dict[str, Any]:
    """Return the summary of an earlier session; empty if there is none, or if it is damaged."""
    try:
        before = read_json(output, SUMMARY_FILE)
    except (FileNotFoundError, ValueError):
        return {}  # other files hold the same values
    return before if isinstance(before.get("unusable", {}), dict) else {}
