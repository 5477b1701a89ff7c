"""Work that reads units and writes none: the same function on every unit, in parallel, a small result from each."""

from __future__ import annotations

import functools
import json
import logging
import pickle
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

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
    """Call `work` on every unit in Ray tasks. Ray must be connected.

    Args:
        units: what to work on.
        work: takes a unit, and its attachment where there are some. It is pickled to the tasks, and its results back;
            they should be small.
        config: `cpus_per_actor` cores per task (one by default), at most `actors` tasks at once (what fits by default).
        resources: of the cluster.
        units_per_task: most units that one task takes. A task costs Ray some 40 ms of processors: give several units of
            quick work. Few units are spread over the tasks that can run at once all the same.
        attachments: bytes for each unit, which travel with it alone; none by default.

    Yields:
        Place of the unit and its result, as their tasks finish.

    Raises:
        ValueError: the cluster can never run a task.
        JobError: `work` raised, or the process of one unit died again and again (Ray alone would try for ever).
    """
    cpus = config.cpus_per_actor or (min(1.0, resources.most_cpus) or 1.0)
    if cpus > resources.most_cpus and not config.wait_for_nodes:
        raise ValueError(
            f"a task needs {cpus:g} cores, but no node has more than {resources.most_cpus:g}. Lower "
            "--ray.cpus-per-actor or, where an autoscaler will add nodes, give --ray.wait-for-nodes."
        )
    if not units:
        return
    at_once = config.actors or max(1, int(resources.cpus // cpus))
    size = max(1, min(units_per_task, len(units) // (4 * at_once)))
    set_data_context()
    ledger = open_ledger()
    rows = [
        {"index": index, "unit": unit.to_json(), "attachment": None if attachments is None else attachments[index]}
        for index, unit in enumerate(units)
    ]
    dataset = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // size)).map_batches(
        functools.partial(_call, work=work, ledger=ledger, stage=uuid.uuid4().hex),
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
                    raise JobError(f"unit {units[row['index']].name}: {row['error']}")
                yield row["index"], pickle.loads(row["result"])  # noqa: S301 - made by our own task a moment ago
    except RayError as error:
        raise JobError(f"the run broke off: {explain(error)}") from error


def _call(task: pa.Table, work: Callable[..., Any], ledger: ActorHandle, stage: str) -> pa.Table:
    """`work` on the units of a task: their results, or what one raised, which Ray Data would bury in a traceback.

    The ledger hears of the task as a whole; only a task whose process died is then recorded unit by unit.
    """
    logs.configure()
    units = [Unit.from_json(text) for text in task["unit"].to_pylist()]
    node = ray.get_runtime_context().get_node_id()
    whole = (f"{stage} task", units[0].name)
    orders = cast("Orders", ray.get(ledger.enquire.remote(*whole)))
    ray.get(ledger.begin.remote(*whole, node))
    rows = []
    for index, unit, attachment in zip(task["index"].to_pylist(), units, task["attachment"].to_pylist(), strict=True):
        result, error = None, None
        if orders.retried and _begin(ledger, stage, unit, node).deaths >= DEATHS_BEFORE_GIVING_UP:
            error = "its process died again and again: too little memory, or a file that crashes its decoder."
        else:
            try:
                result = pickle.dumps(
                    work(unit) if attachment is None else work(unit, attachment), protocol=pickle.HIGHEST_PROTOCOL
                )
            except Exception as problem:
                logger.exception("cannot be worked on", extra={"unit": unit.name})
                error = masked(f"{type(problem).__name__}: {problem}")
        if orders.retried:
            ray.get(ledger.end.remote(stage, unit.name, finished=True))
        rows.append({"index": index, "result": result, "error": error, "retries": json.dumps(retries.take())})
    ray.get(ledger.end.remote(*whole, finished=True))
    return pa.Table.from_pylist(rows, schema=_RESULT_SCHEMA)


def _begin(ledger: ActorHandle, stage: str, unit: Unit, node: str) -> Orders:
    """What is known of earlier attempts at the unit; another begins."""
    orders = cast("Orders", ray.get(ledger.enquire.remote(stage, unit.name)))
    ray.get(ledger.begin.remote(stage, unit.name, node))
    return orders
