"""Apply one function to many items in parallel; each returns a small result.

Items are units, or whatever a job divides its work into. A process that dies is replaced and its item repeated.
"""

from __future__ import annotations

import functools
import json
import logging
import pickle
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import pyarrow as pa
import ray
from ray.actor import ActorHandle
from ray.data import TaskPoolStrategy
from ray.exceptions import RayError

from wsss_ray.config import RayConfig
from wsss_ray.engine import logs
from wsss_ray.engine.cluster import Resources
from wsss_ray.engine.ledger import DEATHS_BEFORE_GIVING_UP, Orders, open_ledger
from wsss_ray.engine.ray_data import explain, set_data_context
from wsss_ray.errors import JobError
from wsss_ray.shards.units import Unit
from wsss_ray.storage import retries
from wsss_ray.storage.redaction import masked

logger = logging.getLogger(__name__)

_RESULT_SCHEMA = pa.schema(
    [("index", pa.int64()), ("result", pa.large_binary()), ("error", pa.string()), ("retries", pa.string())]
)

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def map_units(
    units: Sequence[Unit],
    work: Callable[..., ResultT],
    *,
    config: RayConfig,
    resources: Resources,
    units_per_task: int = 1,
    attachments: Sequence[bytes] | None = None,
) -> Iterator[tuple[int, ResultT]]:
    """Call `work` on every unit, as `map_items`.

    Args:
        units: what to work on.
        work: takes a unit, and its attachment where there are some.
        config: as for `map_items`.
        resources: as for `map_items`.
        units_per_task: as `items_per_task` of `map_items`.
        attachments: bytes for each unit, which are sent with it alone; none by default.
    """
    arguments = [(unit,) for unit in units] if attachments is None else list(zip(units, attachments, strict=True))
    return map_items(
        arguments,
        functools.partial(_apply, work),
        names=[f"unit {unit.name}" for unit in units],
        config=config,
        resources=resources,
        items_per_task=units_per_task,
    )


def map_items(
    items: Sequence[ItemT],
    work: Callable[[ItemT], ResultT],
    *,
    names: Sequence[str],
    config: RayConfig,
    resources: Resources,
    items_per_task: int = 1,
    isolate: Callable[[ItemT, Isolation], ResultT] | None = None,
) -> Iterator[tuple[int, ResultT]]:
    """Call `work` on every item in Ray tasks. Ray must be connected.

    Args:
        items: what to work on. They are pickled to the tasks.
        work: is pickled to the tasks, and its results back; they should be small.
        names: a name for each item, all different, for error messages.
        config: `cpus_per_actor` cores per task (one by default), at most `actors` tasks at once (what fits by default).
        resources: of the cluster.
        items_per_task: most items that one task takes. A task costs Ray some 40 ms of processors: give several items of
            quick work. Few items are still spread over the tasks that can run at once.
        isolate: is called in place of `work` on an item that was running when two processes died, to find out which
            part of the item kills its process.

    Yields:
        Index of the item and its result, as their tasks finish.

    Raises:
        ValueError: the cluster can never run a task.
        JobError: `work` raised, or the process of one item died again and again (Ray alone would retry without end).
    """
    cpus = config.cpus_per_actor or (min(1.0, resources.most_cpus) or 1.0)
    if cpus > resources.most_cpus and not config.wait_for_nodes:
        raise ValueError(
            f"a task needs {cpus:g} cores, but no node has more than {resources.most_cpus:g}. Lower "
            "--ray.cpus-per-actor or, where an autoscaler will add nodes, give --ray.wait-for-nodes."
        )
    if not items:
        return
    at_once = config.actors or max(1, int(resources.cpus // cpus))
    size = max(1, min(items_per_task, len(items) // (4 * at_once)))
    set_data_context()
    rows = [
        {"index": index, "name": name, "item": pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL)}
        for index, (name, item) in enumerate(zip(names, items, strict=True))
    ]
    task = _Task(work=work, isolate=isolate, ledger=open_ledger(), stage=uuid.uuid4().hex)
    dataset = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // size)).map_batches(
        task.run,
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=cpus,
        compute=TaskPoolStrategy(size=config.actors),
    )
    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for row in cast("pa.Table", batch).to_pylist():
                retries.add(json.loads(row["retries"]))
                if row["error"] is not None:
                    raise JobError(f"{names[row['index']]}: {row['error']}")
                yield row["index"], pickle.loads(row["result"])  # noqa: S301 - made by our own task a moment ago
    except RayError as error:
        raise JobError(f"the run broke off: {explain(error)}") from error


def _apply(work: Callable[..., ResultT], arguments: tuple[Any, ...]) -> ResultT:
    return work(*arguments)


@dataclass(frozen=True, kw_only=True)
class Isolation:
    """An item of which one part may kill the process."""

    ledger: ActorHandle
    stage: str
    name: str
    node: str
    history: Orders

    def find_killers(self, parts: Iterable[str], run: Callable[[str], object]) -> frozenset[str]:
        """Run the parts one at a time, and return those that killed their process twice.

        A death at a part ends this process. The next attempt continues with the part that was running.
        """
        for part in parts:
            if part in self.history.survived or part in self.history.quarantined:
                continue
            ray.get(self.ledger.begin.remote(self.stage, self.name, self.node, part))
            run(part)
            ray.get(self.ledger.end.remote(self.stage, self.name, finished=False))
        ray.get(self.ledger.begin.remote(self.stage, self.name, self.node))
        return self.history.quarantined


@dataclass(frozen=True, kw_only=True)
class _Task(Generic[ItemT, ResultT]):
    """Runs `work` on the items of one Ray task and returns their results, or what one of them raised.

    The ledger is told of the task as a whole; only a task whose process died is then recorded item by item.
    """

    work: Callable[[ItemT], ResultT]
    isolate: Callable[[ItemT, Isolation], ResultT] | None
    ledger: ActorHandle
    stage: str

    def run(self, rows: pa.Table) -> pa.Table:
        logs.configure()
        node = ray.get_runtime_context().get_node_id()
        names = rows["name"].to_pylist()
        whole = (f"{self.stage} task", names[0])
        retried = self._history(*whole).retried
        ray.get(self.ledger.begin.remote(*whole, node))
        results = []
        for index, name, item in zip(rows["index"].to_pylist(), names, rows["item"].to_pylist(), strict=True):
            work: Callable[[ItemT], ResultT] | None = self._recorded(name, node) if retried else self.work
            result, error = None, None
            if work is None:
                error = "its process died again and again: too little memory, or a file that crashes its decoder."
            else:
                try:
                    made = work(pickle.loads(item))  # noqa: S301 - made by our own driver
                    result = pickle.dumps(made, protocol=pickle.HIGHEST_PROTOCOL)
                except Exception as problem:
                    logger.exception("cannot be worked on", extra={"unit": name})
                    error = masked(f"{type(problem).__name__}: {problem}")
            if retried:
                ray.get(self.ledger.end.remote(self.stage, name, finished=True))
            results.append({"index": index, "result": result, "error": error, "retries": json.dumps(retries.take())})
        ray.get(self.ledger.end.remote(*whole, finished=True))
        return pa.Table.from_pylist(results, schema=_RESULT_SCHEMA)

    def _recorded(self, name: str, node: str) -> Callable[[ItemT], ResultT] | None:
        """Return how to work on an item whose task died before, the attempt recorded; None after too many deaths."""
        history = self._history(self.stage, name)
        ray.get(self.ledger.begin.remote(self.stage, name, node))
        if history.unexplained >= DEATHS_BEFORE_GIVING_UP:
            return None
        if self.isolate is None or not history.isolate:
            return self.work
        isolation = Isolation(ledger=self.ledger, stage=self.stage, name=name, node=node, history=history)
        return functools.partial(_with_isolation, self.isolate, isolation)

    def _history(self, stage: str, name: str) -> Orders:
        return cast("Orders", ray.get(self.ledger.enquire.remote(stage, name)))


def _with_isolation(isolate: Callable[[ItemT, Isolation], ResultT], isolation: Isolation, item: ItemT) -> ResultT:
    return isolate(item, isolation)
