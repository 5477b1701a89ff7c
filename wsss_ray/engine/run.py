"""The resumable run: units still to do -> read -> stages in actor pools -> one committed file per unit."""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Sequence
from typing import cast

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, TaskPoolStrategy

from wsss_ray.engine.cluster import READ_CPUS
from wsss_ray.engine.ledger import open_ledger
from wsss_ray.engine.progress import Progress
from wsss_ray.engine.ray_data import explain, set_data_context
from wsss_ray.engine.stage import Sink, StageSpec
from wsss_ray.engine.task import Outcome, Task
from wsss_ray.engine.worker import Report, UnitWorker, read_task
from wsss_ray.errors import JobError
from wsss_ray.storage import retries
from wsss_ray.storage.storage import Storage

READS_PER_ACTOR = 2
"""Units that are read at once for each actor of the first stage. Cores alone would allow ten for each free one: a small
machine would first start as many processes, and hold as many units."""


def run_units(
    tasks: Sequence[Task],
    *,
    images: Storage,
    stages: Sequence[StageSpec],
    sink: Sink,
    progress: Progress,
) -> Outcome:
    """Run the stages on all tasks and commit each unit as it finishes. Ray must be connected.

    Args:
        tasks: what to do, in order.
        images: folder of the image shards.
        stages: steps in order; the last one's actors commit.
        sink: where the finished units go.
        progress: is told of every unit.

    Raises:
        JobError: the run broke off; what was committed stands.
    """
    set_data_context()
    retried_before = retries.counted()
    ledger, run = open_ledger(), uuid.uuid4().hex
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
    outcome = Outcome()
    with progress.printing():
        try:
            for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for text in cast("pa.Table", batch)["report"].to_pylist():
                    report = Report(**json.loads(text))
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
        except ray.exceptions.RayError as error:
            raise _broken_off(explain(error)) from error
    outcome.images = progress.images
    outcome.seconds_elapsed = progress.elapsed
    outcome.rate = progress.rate
    outcome.seconds = progress.seconds
    outcome.retries = retries.counted() - retried_before
    return outcome


def _broken_off(reason: str) -> JobError:
    return JobError(
        f"the run broke off: {reason}\nFinished units stand; when the cause is mended, the same command goes on from "
        "there."
    )
