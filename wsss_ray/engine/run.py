"""The resumable run: units still to do -> read -> stages in actor pools -> one committed file per unit."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pyarrow as pa
import ray
from ray.actor import ActorHandle
from ray.data import ActorPoolStrategy, TaskPoolStrategy

from wsss_ray.cluster import READ_CPUS
from wsss_ray.data import retries
from wsss_ray.data.shards import ShardSet, Unit
from wsss_ray.data.storage import Storage
from wsss_ray.engine.ledger import Ledger
from wsss_ray.engine.progress import Progress
from wsss_ray.engine.ray_data import explain, set_data_context
from wsss_ray.engine.stage import Sink, StageSpec
from wsss_ray.engine.worker import Report, UnitWorker, read_task
from wsss_ray.errors import JobError

RUN_FILE = "run.json"
READS_PER_ACTOR = 2
"""Units that are read at once for each actor of the first stage. Cores alone would allow ten for each free one: a small
machine would first start as many processes, and hold as many units."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A unit to run, whole or in part."""

    unit: Unit
    only: tuple[str, ...] | None = None
    """Ids of the images to run again; None: all."""
    version: str | None = None
    """Version of the label file that these images' rows go into, with `only`."""

    @property
    def images(self) -> int:
        """Images to run."""
        return self.unit.rows if self.only is None else len(self.only)

    def to_json(self) -> str:
        """As the first step takes it."""
        return json.dumps({"unit": self.unit.to_json(), "only": self.only, "version": self.version})


@dataclass(kw_only=True)
class Outcome:
    """What one call of `run_units` did."""

    images: int = 0
    seconds_elapsed: float = 0.0
    rate: float = 0.0
    """Images per second in steady state."""
    seconds: Counter[str] = field(default_factory=Counter)
    """Actor seconds by part of the work."""
    retries: Counter[str] = field(default_factory=Counter)
    """Requests to the store that the driver and the workers made again, by reason."""
    problems: list[str] = field(default_factory=list)
    """Units that could not be read, with the reason."""


def claim(
    output: Storage, identity: Mapping[str, Any], *, shards: ShardSet | None = None, results: str = "labels"
) -> bool:
    """Claim the run directory for a configuration, or join it.

    Args:
        output: run directory.
        identity: everything that changes results, as nested JSON values, the shards' digest as "shards" among them.
        shards: what is to be worked on, so that shards that were replaced can be named.
        results: folder of what the run makes, and the word for it.

    Returns:
        Whether the directory is new; False where it holds a run of the same identity.

    Raises:
        ValueError: it holds a run of another identity, whose differing fields are named, or results of unknown origin.
    """
    text = json.dumps(identity, indent=2, sort_keys=True)
    if not output.exists(RUN_FILE) and output.list(results):
        raise ValueError(
            f"{output.uri} holds {results}, but no {RUN_FILE} that says how they were made: use another --output."
        )
    if output.create(RUN_FILE, text.encode()):
        return True
    try:
        before = json.loads(output.read(RUN_FILE))
    except json.JSONDecodeError as error:
        raise ValueError(f"{output.describe(RUN_FILE)} is not JSON ({error}): it is no run of wsss_ray.") from error
    lines = _differences(before, json.loads(text), "")
    if shards is not None:
        lines = [line + _replaced(output, shards) if line.startswith("shards: ") else line for line in lines]
    if lines:
        raise ValueError(
            f"{output.uri} holds a run with another configuration; its {results} would be mixed with different ones. "
            f"Use another --output, or the configuration of that run{_if_empty(output, results)}. What differs (there "
            "-> here):\n  " + "\n  ".join(lines)
        )
    return False


def _if_empty(output: Storage, results: str) -> str:
    if output.list(results):
        return ""
    return f"; it holds no {results} yet, so removing {output.describe(RUN_FILE)} is safe"


def _replaced(output: Storage, shards: ShardSet) -> str:
    """Which shards are not what was labelled, as far as the names of the label files tell."""
    now = {unit.name.rpartition("-")[0]: unit for unit in shards.units}
    names = set()
    for file in output.list("labels"):
        name = file.removesuffix(".parquet")
        place = name.rpartition("-")[0]
        if place not in now:
            names.add(f"{place.rpartition('-')[0]}.parquet (gone)")
        elif now[place].name != name:
            names.add(now[place].shard)
    if not names:
        return ""
    shown = ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"; of other content than what was labelled: {shown}"


def _differences(before: Any, now: Any, prefix: str) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        lines = []
        for key in sorted(before.keys() | now.keys()):
            lines += _differences(before.get(key), now.get(key), f"{prefix}.{key}" if prefix else key)
        return lines
    return [] if before == now else [f"{prefix}: {_short(before)} -> {_short(now)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def units_to_do(shards: ShardSet, output: Storage, *, limit: int | None) -> tuple[list[Unit], list[Unit]]:
    """Split the units (the first ones that hold `limit` images) into those with a label file and those without.

    Returns:
        Finished units, units to do; both in order.
    """
    chosen = []
    images = 0
    for unit in shards.units:
        if limit is not None and images >= limit:
            break
        chosen.append(unit)
        images += unit.rows
    there = {f"labels/{name}" for name in output.list("labels")}
    return [u for u in chosen if u.label_path in there], [u for u in chosen if u.label_path not in there]


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
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
    ledger = cast("ActorHandle", ray.remote(Ledger).options(**options).remote())
    rows = [{"task": task.to_json()} for task in tasks]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(  # from_arrow starts a task for each
        functools.partial(read_task, images=images, ledger=ledger),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=READ_CPUS,
        compute=TaskPoolStrategy(size=min(READS_PER_ACTOR * stages[0].pool.actors, len(tasks))),
    )
    for index, spec in enumerate(stages):
        dataset = dataset.map_batches(
            UnitWorker,
            fn_constructor_args=(spec, ledger, sink if index == len(stages) - 1 else None),
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
                    progress.add(report)
        except ray.exceptions.RayError as error:
            raise _broken_off(explain(error)) from error
        finally:
            ray.kill(ledger)  # Ray's workers remember what they were given, and would keep it for as long as they live
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
