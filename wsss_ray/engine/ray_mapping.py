"""`map_items` in Ray tasks: processes that die are replaced, and an item that kills each of them is named."""

from __future__ import annotations

import functools
import json
import pickle
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import pyarrow as pa
import ray
from ray.actor import ActorHandle
from ray.data import TaskPoolStrategy
from ray.exceptions import RayError

from wsss_ray.config import RayConfig
from wsss_ray.engine import logs
from wsss_ray.engine.ledger import DEATHS_BEFORE_GIVING_UP, AttemptHistory, open_ledger
from wsss_ray.engine.ray_data import explain, set_data_context
from wsss_ray.engine.resources import Resources
from wsss_ray.engine.task import describe_error
from wsss_ray.errors import JobError
from wsss_ray.storage import retries

_RESULT_SCHEMA = pa.schema(
    [("index", pa.int64()), ("result", pa.large_binary()), ("error", pa.string()), ("retries", pa.string())]
)

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def map_in_tasks(
    items: Sequence[ItemT],
    work: Callable[[ItemT], ResultT],
    *,
    names: Sequence[str],
    config: RayConfig,
    resources: Resources,
    items_per_task: int,
    isolate: Callable[[ItemT, Isolation], ResultT] | None,
) -> Iterator[tuple[int, ResultT]]:
    """Do the work of `map_items` in Ray tasks. Ray must be connected."""
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
    task = _MappingTask(work=work, isolate=isolate, ledger=open_ledger(), stage=uuid.uuid4().hex)
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


@dataclass(frozen=True, kw_only=True)
class Isolation:
    """An item of which one part may kill the process."""

    ledger: ActorHandle
    stage: str
    name: str
    node: str
    history: AttemptHistory

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
class _MappingTask(Generic[ItemT, ResultT]):
    """Runs `work` on the items of one Ray task and returns their results, or the text of an exception.

    The ledger records the task as a whole; only a task whose process died is then recorded item by item.
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
                error = "its process died repeatedly: too little memory, or a file that crashes its decoder."
            else:
                try:
                    with logs.at(unit=name):
                        made = work(pickle.loads(item))  # noqa: S301 - made by our own driver
                    result = pickle.dumps(made, protocol=pickle.HIGHEST_PROTOCOL)
                except Exception as problem:  # noqa: BLE001 - the driver ends the job with it
                    logs.failure("the work failed", problem)
                    error = describe_error(problem)
            if retried:
                ray.get(self.ledger.end.remote(self.stage, name, finished=True))
            results.append({"index": index, "result": result, "error": error, "retries": json.dumps(retries.take())})
        ray.get(self.ledger.end.remote(*whole, finished=True))
        return pa.Table.from_pylist(results, schema=_RESULT_SCHEMA)

    def _recorded(self, name: str, node: str) -> Callable[[ItemT], ResultT] | None:
        """Record an attempt at an item whose task died before, and return how to run it; None after too many deaths."""
        history = self._history(self.stage, name)
        ray.get(self.ledger.begin.remote(self.stage, name, node))
        if history.unexplained >= DEATHS_BEFORE_GIVING_UP:
            return None
        if self.isolate is None or not history.isolate:
            return self.work
        isolation = Isolation(ledger=self.ledger, stage=self.stage, name=name, node=node, history=history)
        return functools.partial(_with_isolation, self.isolate, isolation)

    def _history(self, stage: str, name: str) -> AttemptHistory:
        return cast("AttemptHistory", ray.get(self.ledger.history.remote(stage, name)))


def _with_isolation(isolate: Callable[[ItemT, Isolation], ResultT], isolation: Isolation, item: ItemT) -> ResultT:
    return isolate(item, isolation)
