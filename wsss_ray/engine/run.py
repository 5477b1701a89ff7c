"""The resumable run: units still to do -> read -> stages in actor pools -> one committed file per unit."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Sequence
from typing import cast

import pyarrow as pa
import ray
from ray.actor import ActorHandle
from ray.data import ActorPoolStrategy, Dataset, TaskPoolStrategy
from ray.exceptions import RayError

from wsss_ray.engine.ledger import open_ledger
from wsss_ray.engine.progress import Activity, Progress
from wsss_ray.engine.ray_data import explain, set_data_context
from wsss_ray.engine.reading import read_task
from wsss_ray.engine.resources import READ_CPUS
from wsss_ray.engine.stage import Sink, StageSpec
from wsss_ray.engine.task import RunOutcome, UnitReport, UnitTask
from wsss_ray.engine.worker import UnitWorker
from wsss_ray.errors import JobError
from wsss_ray.storage import retries
from wsss_ray.storage.storage import Storage

READS_PER_ACTOR = 2
"""Units that are read at once for each actor of the first stage. Cores alone would allow ten for each free one: a small
machine would first start as many processes, and hold as many units."""

_ASK_SECONDS = 1.0
"""Longest wait for the ledger's answer to the status line."""


def run_units(
    tasks: Sequence[UnitTask],
    *,
    images: Storage,
    stages: Sequence[StageSpec],
    sink: Sink,
    progress: Progress,
) -> RunOutcome:
    """Run the stages on all tasks and commit each unit as it finishes. Ray must be connected.

    Args:
        tasks: what to do, in order.
        images: folder of the image shards.
        stages: steps in order; the last one's actors commit.
        sink: writes the finished units.
        progress: counts every unit.

    Raises:
        JobError: the run broke off; committed units stay.
    """
    set_data_context()
    retried_before = retries.counted()
    ledger, run = open_ledger(), uuid.uuid4().hex
    dataset = _dataset(tasks, images, stages, sink, ledger=ledger, run=run)
    outcome = RunOutcome()
    progress.activity = _activity_of(ledger, stages, run)
    with progress.printing():
        try:
            for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for text in cast("pa.Table", batch)["report"].to_pylist():
                    _count(UnitReport.from_json(text), progress, outcome)
        except RayError as error:
            raise _broken_off(explain(error)) from error
    outcome.images = progress.images
    outcome.seconds_elapsed = progress.elapsed
    outcome.rate = progress.rate
    outcome.seconds = progress.seconds
    outcome.retries = retries.counted() - retried_before
    return outcome


def _dataset(
    tasks: Sequence[UnitTask],
    images: Storage,
    stages: Sequence[StageSpec],
    sink: Sink,
    *,
    ledger: ActorHandle,
    run: str,
) -> Dataset:
    """Return the reports of all tasks, which run as they are iterated."""
    rows = [{"task": task.to_json()} for task in tasks]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(  # from_arrow starts a task for each
        functools.partial(read_task, images=images, ledger=ledger, run=run),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=READ_CPUS,
        compute=TaskPoolStrategy(size=min(READS_PER_ACTOR * stages[0].pool.actors, len(tasks))),
    )
    for index, spec in enumerate(stages):
        dataset = dataset.map_batches(
            UnitWorker,
            fn_constructor_args=(spec, ledger, run, sink if index == len(stages) - 1 else None),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=spec.pool.cpus,
            num_gpus=spec.pool.gpus,
            compute=ActorPoolStrategy(
                size=min(spec.pool.actors, len(tasks)),
                max_tasks_in_flight_per_actor=spec.units_per_actor,
                max_concurrent_calls_per_actor=spec.calls_per_actor,
                enable_true_multi_threading=True,
            ),
        )
    return dataset


def _count(report: UnitReport, progress: Progress, outcome: RunOutcome) -> None:
    """Count a unit.

    Raises:
        JobError: no unit can continue.
    """
    retries.add(report.retries)
    if report.fatal is not None:
        raise _broken_off(report.fatal)
    if report.problem is not None:
        outcome.problems.append(report.problem)
        print(f"unit lost: {report.problem}", flush=True)
    counts = report.counts or {}
    progress.add(
        report.images,
        failed=counts.get("statuses", {}).get("failed", 0),
        boxes=counts.get("boxes"),
        seconds=report.seconds,
    )


def _activity_of(ledger: ActorHandle, stages: Sequence[StageSpec], run: str) -> Callable[[], Activity | None]:
    """Return a function that asks the ledger what the actors do; None where it does not answer at once."""
    names = [spec.recorded_as(run) for spec in stages]

    def ask() -> Activity | None:
        try:
            return cast("Activity", ray.get(ledger.activity.remote(names), timeout=_ASK_SECONDS))
        except RayError:
            return None

    return ask


def _broken_off(reason: str) -> JobError:
    return JobError(
        f"the run broke off: {reason.rstrip('.')}. Finished units stay; once the cause is removed, the same command "
        "continues with the rest."
    )
