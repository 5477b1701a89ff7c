"""The dry run of a pipeline: for each step its work, its hours from timed samples, and its bytes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import RayError

from wsss_ray.classes import ClassSet
from wsss_ray.config import PredictConfig, ShardConfig, TrainConfig
from wsss_ray.datasets.items import Listing
from wsss_ray.datasets.rows import Rejected, RowMaker
from wsss_ray.engine.progress import format_seconds
from wsss_ray.engine.ray_data import explain
from wsss_ray.engine.resources import Resources, hardware, model_pool
from wsss_ray.engine.stage import Stage, StageSpec
from wsss_ray.errors import JobError
from wsss_ray.images.decoding import ExifRule
from wsss_ray.labelling.plan import decided, plan_stages
from wsss_ray.labels.sample import IMAGES_TIMED, estimate, time_stages
from wsss_ray.models.precision import decide
from wsss_ray.pipeline.checks import in_step
from wsss_ray.pipeline.plan import Plan, Step
from wsss_ray.sharding.plan import classes_of, items_of, rules_of
from wsss_ray.shards.schemas import IMAGE_SCHEMA, READ_COLUMNS
from wsss_ray.training.plan import Allocation, allocate

EVALUATION_SECONDS = 0.005
"""Assumed seconds for one image and core; a unit of 32 takes about 0.15 s."""
GALLERY_SECONDS = 0.05
"""Assumed seconds for one image and core."""
GALLERY_BYTES = 150_000
"""Assumed bytes for one image: photo, label, truth and thumbnail."""
UPDATES_TIMED = 2


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Work, time and bytes of one step."""

    step: str
    work: str
    """Images or updates, and on what."""
    seconds: float
    size: float
    """Bytes that it writes."""

    def __str__(self) -> str:
        """Return a line of the plan."""
        return f"{self.step:<26}  {format_seconds(self.seconds):>10}  {self.size / 1e6:>12,.1f} MB  {self.work}"


@dataclass(frozen=True, kw_only=True)
class Images:
    """The images of one sharding step, and a sample of their rows."""

    count: int
    size: int
    """Bytes of the image files."""
    units: list[int]
    """Images of each unit."""
    sample: pa.Table
    """A few rows in IMAGE_SCHEMA."""
    exif: ExifRule
    seconds: float
    """For one image, to read and check it."""


def describe_steps(plan: Plan, steps: list[Step], listings: Mapping[str, Listing], resources: Resources) -> list[str]:
    """Return the lines of a dry run. Models are timed on a few images; nothing is written.

    Raises:
        ValueError: no image of a step can be read.
        JobError: a model fails on the sample.
    """
    images = {
        step.name: in_step(step.name, partial(_sample, step.config, listings[step.name]))
        for step in steps
        if step.job == "shard"
    }
    labelled = images["shard"]
    tested = images.get("shard test images", labelled)
    trained = {"train": labelled, "pretraining": images.get("shard pretraining images", labelled)}
    lines = [f"{'step':<26}  {'time':>10}  {'writes':>15}  work"]
    total, written = 0.0, 0.0
    for step in steps:
        on = labelled if step.name.endswith("labels") else tested
        if step.job == "shard":
            one = _shard(step, images[step.name], resources)
        elif step.job == "label":
            one = in_step(step.name, partial(_label, plan, step, labelled, resources))
        elif step.job == "train":
            one = in_step(step.name, partial(_train, step, trained[step.name], resources))
        elif step.job == "predict":
            one = in_step(step.name, partial(_predict, plan, step, tested, resources))
        elif step.job == "evaluate":
            one = _per_image(step, on.count, EVALUATION_SECONDS, 150, resources)
        else:
            shown = min(on.count, step.config.sample or on.count)
            one = _per_image(step, shown, GALLERY_SECONDS, GALLERY_BYTES, resources)
        total, written = total + one.seconds, written + one.size
        lines.append(str(one))
    lines.append(str(Estimate(step="all steps", work="", seconds=total, size=written)))
    lines.append("Times are those of this cluster, from samples, without starting processes and loading models.")
    return lines


def _sample(config: ShardConfig, listing: Listing) -> Images:
    """Read a few images of a step as sharding would."""
    items, rules = items_of(config, listing), rules_of(config, listing)
    maker = RowMaker(listing, classes_of(config), rules)
    rows: list[dict[str, Any]] = []
    started, read = time.monotonic(), 0
    for item in items:
        fetched = maker.fetch(item)
        row = fetched if isinstance(fetched, Rejected) else maker.make(item, fetched)
        read += 1
        if isinstance(row, dict) and row["tags"]:
            rows.append(row)
        if len(rows) == IMAGES_TIMED or read == 10 * IMAGES_TIMED:
            break
    if not rows:
        raise ValueError(f"none of the first {read} images of {config.input} can be used; wsss-ray shard says why.")
    sizes = [min(config.images_per_unit, len(items) - first) for first in range(0, len(items), config.images_per_unit)]
    return Images(
        count=len(items),
        size=sum(item.size or 0 for item in items),
        units=sizes,
        sample=pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA),
        exif=rules.exif,
        seconds=(time.monotonic() - started) / read,
    )


def _shard(step: Step, images: Images, resources: Resources) -> Estimate:
    seconds = images.count * images.seconds / max(1.0, resources.cpus)
    work = f"{images.count:,} images of {step.config.input}"
    return Estimate(step=step.name, work=work, seconds=seconds, size=images.size)


def _label(plan: Plan, step: Step, images: Images, resources: Resources) -> Estimate:
    config = decided(plan.label, **hardware(plan.label.ray, resources))
    classes = ClassSet.load(config.classes, assist_words=config.assist_words)
    stages = plan_stages(config, classes, images.exif, resources)
    timings = time_stages(stages, images.sample.select(READ_COLUMNS))
    work = f"{images.count:,} images by {', '.join(stage.describe() for stage in stages)}"
    size = images.count * timings[-1].row_bytes
    return Estimate(step=step.name, work=work, seconds=estimate(timings, images.units), size=size)


def _train(step: Step, images: Images, resources: Resources) -> Estimate:
    given: TrainConfig = step.config
    allocation = allocate(given, resources)
    config = decide(given, has_gpus=allocation.workers.gpus > 0, has_bfloat16=resources.has_bfloat16)
    timed = ray.remote(_time_updates).options(num_cpus=allocation.workers.cpus, num_gpus=allocation.workers.gpus)
    try:
        seconds, parameters, states = ray.get(timed.remote(config, allocation))
    except RayError as error:
        raise JobError(f"an update failed: {explain(error)}") from error
    recipe = config.recipe
    work = f"{recipe.iterations:,} updates of {recipe.batch_size} of {images.count:,} images, {allocation.workers}"
    size = 4 * parameters * (1 + config.keep_checkpoints * (1 + states))
    return Estimate(step=step.name, work=work, seconds=recipe.iterations * seconds, size=size)


def _time_updates(config: TrainConfig, allocation: Allocation) -> tuple[float, int, int]:
    """Return the seconds of one update, the parameters of the network, and the optimizer's states for each."""
    import torch  # noqa: PLC0415 - in the worker alone

    from wsss_ray.models.device import resolve_compute  # noqa: PLC0415
    from wsss_ray.training.updates import Updater  # noqa: PLC0415

    recipe, workers = config.recipe, allocation.workers.actors
    torch.set_num_threads(allocation.threads)
    compute = resolve_compute(config.device, config.precision)
    student = _untrained(config).to(compute.device).train()
    updater = Updater.of(config, student, compute=compute, workers=workers)
    samples = recipe.batch_size // workers
    images = torch.randint(0, 256, (samples, recipe.crop, recipe.crop, 3), dtype=torch.uint8).numpy()
    labels = torch.zeros((samples, recipe.crop, recipe.crop), dtype=torch.int16).numpy()
    updater.update(0, images, labels)  # the first one allocates
    started = time.monotonic()
    for _ in range(UPDATES_TIMED):
        float(updater.update(0, images, labels).sum())  # waits for the device
    seconds = (time.monotonic() - started) / UPDATES_TIMED
    states = 2 if recipe.optimizer == "adamw" else 1
    return seconds, sum(value.numel() for value in student.parameters()), states


def _untrained(config: TrainConfig) -> Any:
    """Return the student with random weights; a transformers model comes with its configuration only."""
    from wsss_ray.models.student.building import build_student  # noqa: PLC0415 - torch, in the worker alone
    from wsss_ray.training.initial_weights import fetch_student_weights  # noqa: PLC0415

    settings = dataclasses.replace(config.student, init="none", weights=None, sha256=None)
    weights = fetch_student_weights(settings, config.storage)
    return build_student(settings, ClassSet.load(config.classes), weights=weights)


def _predict(plan: Plan, step: Step, images: Images, resources: Resources) -> Estimate:
    config = decide(plan.predict, **hardware(plan.predict.ray, resources))
    pool = model_pool(config.ray, resources)
    stage = StageSpec(name="predict", make=partial(_untrained_stage, plan.train, config, images.exif), pool=pool)
    timings = time_stages([stage], images.sample.select(READ_COLUMNS))
    work = f"{images.count:,} images by {stage.describe()}"
    size = images.count * timings[-1].row_bytes
    return Estimate(step=step.name, work=work, seconds=estimate(timings, images.units), size=size)


def _untrained_stage(train: TrainConfig, config: PredictConfig, exif: ExifRule) -> Stage:
    """Return the prediction stage of a student with random weights: it takes as long as a trained one."""
    from wsss_ray.models.student.files import encode_student  # noqa: PLC0415 - torch, in the worker alone
    from wsss_ray.prediction.stage import PredictStage  # noqa: PLC0415

    with TemporaryDirectory() as folder:
        path = Path(folder) / "student.safetensors"
        path.write_bytes(encode_student(_untrained(train).eval()))
        return PredictStage(config, str(path), exif)


def _per_image(step: Step, count: int, seconds: float, size: int, resources: Resources) -> Estimate:
    return Estimate(
        step=step.name,
        work=f"{count:,} images",
        seconds=count * seconds / max(1.0, resources.cpus),
        size=count * size,
    )
