"""The labelling job: image-level tags in, pixel labels out, resumable and exact."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import ray

from wsss_ray.classes import ClassSet
from wsss_ray.cluster import Resources, connect, warn_of_local_paths
from wsss_ray.config import LabelConfig
from wsss_ray.data.shards import ShardSet, Unit, check_label_space, read_label_counts, read_labels, read_shard_set
from wsss_ray.data.storage import Storage
from wsss_ray.engine import Outcome, Progress, StageSpec, Task, claim, run_units, units_to_do
from wsss_ray.engine.run import RUN_FILE
from wsss_ray.errors import JobError
from wsss_ray.labelling.plan import Plan, describe, identity, stage_specs
from wsss_ray.labelling.sample import describe_sample
from wsss_ray.labelling.sink import LabelSink, png_path
from wsss_ray.labelling.summary import SUMMARY_FILE, format_summary, summarise, write_summary


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What all steps of one call need."""

    config: LabelConfig
    images: Storage
    shards: ShardSet
    sink: LabelSink

    @property
    def output(self) -> Storage:
        return self.sink.output

    @property
    def classes(self) -> ClassSet:
        return self.sink.classes


def run(config: LabelConfig) -> dict[str, Any]:
    """Label all images of `config.input` that have no label in `config.output` yet.

    Returns:
        The summary over all sessions, as `summary.json` holds it; empty for a dry run.

    Raises:
        ValueError: input, output or configuration cannot be used together; nothing was changed.
        JobError: the run broke off or units could not be read; what is finished stands.
    """
    images = Storage(config.input, config.storage)
    classes = ClassSet.load(config.classes, assist_words=config.assist_words)
    shards = read_shard_set(images)
    check_label_space(shards, classes)
    sink = LabelSink(
        output=Storage(config.output, config.storage), classes=classes, png=config.png, grey=_grey(config, classes)
    )
    job = _Run(config=config, images=images, shards=shards, sink=sink)
    with ExitStack() as stack:
        joins = config.ray.address or os.environ.get("RAY_ADDRESS") or ray.is_initialized()
        resources = stack.enter_context(connect(config.ray)) if joins else None
        has_gpus = resources.gpus > 0 if resources else _machine_has_gpus()
        content = identity(config, classes, shards, has_gpus=has_gpus)
        if not config.dry_run and sink.output.exists(RUN_FILE):
            _claim(job, content)
        finished, tasks = _find_work(job)
        if not tasks and not config.dry_run:
            print(f"nothing to do: all {sum(unit.rows for unit in finished):,} images are labelled", flush=True)
            return _finish(job, None)
        resources = resources or stack.enter_context(connect(config.ray))
        stages = stage_specs(config, classes, shards, resources)  # refused pools leave the output as it was
        if not config.dry_run:
            _claim(job, content)
        return _work(job, finished, tasks, stages, resources)


def _claim(job: _Run, content: dict[str, Any]) -> None:
    """Claim the output or join the run that is there, and the form of its PNGs."""
    if claim(job.output, content):
        print(f"started the run in {job.output.uri}", flush=True)
    if job.config.png:
        job.sink.claim_png_form()


def _find_work(job: _Run) -> tuple[list[Unit], tuple[Task, ...]]:
    """List what is finished and what is to be done."""
    finished, missing = units_to_do(job.shards, job.output, limit=job.config.limit)
    retried = _failed_tasks(job.output, finished) if job.config.retry_failed else ()
    return finished, (*(Task(unit=unit) for unit in missing), *retried)


def _work(
    job: _Run,
    finished: Sequence[Unit],
    tasks: tuple[Task, ...],
    stages: tuple[StageSpec, ...],
    resources: Resources,
) -> dict[str, Any]:
    config = job.config
    warn_of_local_paths(resources, job.images, job.output)
    done = sum(unit.rows for unit in finished)
    plan = Plan(config=config, classes=job.classes, shards=job.shards, done=done, tasks=tasks, stages=stages)
    print(describe(plan, input_uri=job.images.uri, output_uri=job.output.uri), flush=True)
    if config.dry_run:
        print(describe_sample(plan, job.images), flush=True)
        return {}
    retried = sum(task.images for task in tasks if task.version is not None)
    progress = Progress(
        total=done + plan.images_to_do - retried, done=done - retried, every_seconds=config.status_seconds
    )
    outcome = run_units(tasks, images=job.images, stages=stages, sink=job.sink, progress=progress)
    summary = _finish(job, outcome)
    if outcome.problems:
        raise JobError(
            f"{len(outcome.problems)} units could not be read, the first: {outcome.problems[0]}\nAll other units are "
            "labelled; mend these shards and run the same command again."
        )
    return summary


def _finish(job: _Run, outcome: Outcome | None) -> dict[str, Any]:
    """Write what is still missing beside the label files, and the summary of all of them, which is returned."""
    output = job.output
    units, _ = units_to_do(job.shards, output, limit=None)
    if job.config.png:
        _write_missing_pngs(job.sink, units)
    summary = summarise(output, units, outcome)
    write_summary(output, summary)
    print(format_summary(summary), flush=True)
    if len(units) < len(job.shards.units):
        rows = sum(unit.rows for unit in units)
        print(f"{rows:,} of {job.shards.rows:,} images are labelled; without --limit the run goes on", flush=True)
    failed = summary["statuses"].get("failed", 0)
    if failed:
        print(f"{failed:,} images failed; their rows say why, and --retry-failed runs just those again", flush=True)
    print(f"labels in {output.describe('labels')}, summary in {output.describe(SUMMARY_FILE)}", flush=True)
    return summary


def _write_missing_pngs(sink: LabelSink, units: Sequence[Unit]) -> None:
    """PNGs of units that an earlier session labelled without them, or that were lost or torn."""
    there = {name for name, info in sink.output.list("png").items() if info.size}

    def write(unit: Unit) -> None:
        ids = read_labels(sink.output, unit.label_path, columns=["image_id"])["image_id"].to_pylist()
        missing = [png_path(image_id).removeprefix("png/") not in there for image_id in ids]
        if any(missing):
            sink.write_pngs(read_labels(sink.output, unit.label_path).filter(missing))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, units))


def _failed_tasks(output: Storage, finished: Sequence[Unit]) -> tuple[Task, ...]:
    """Tasks for the failed images of finished units, each bound to the version of the label file it read."""
    versions = output.list("labels")
    tasks = []
    for unit in finished:
        if not read_label_counts(output, unit.label_path)["statuses"].get("failed"):
            continue
        rows = read_labels(output, unit.label_path)
        failed = rows.filter([status == "failed" for status in rows["status"].to_pylist()])
        version = versions[unit.label_path.removeprefix("labels/")].version
        tasks.append(Task(unit=unit, only=tuple(failed["image_id"].to_pylist()), version=version))
    return tuple(tasks)


def _grey(config: LabelConfig, classes: ClassSet) -> bool:
    return config.png_palette == "grey" or (config.png_palette == "auto" and classes.name == "coco")


def _machine_has_gpus() -> bool:
    import torch  # noqa: PLC0415 - seconds that a joined cluster does not need

    return torch.cuda.is_available()
