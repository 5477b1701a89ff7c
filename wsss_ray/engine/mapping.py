"""Work that reads units and writes none: the same function on every unit, in parallel, a small result from each."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import pyarrow as pa
import ray
from ray.data import TaskPoolStrategy

from wsss_ray.cluster import Resources
from wsss_ray.config import RayConfig
from wsss_ray.data.shards import Unit
from wsss_ray.engine.ray_data import explain, set_data_context
from wsss_ray.errors import JobError

_RETRIES = 5
"""Times that Ray runs a unit again whose process died. Its default is without end, also where the unit is the cause."""

ResultT = TypeVar("ResultT")


def map_units(
    units: Sequence[Unit], work: Callable[[Unit], ResultT], *, config: RayConfig, resources: Resources
) -> Iterator[tuple[int, ResultT]]:
    """Call `work` on every unit in Ray tasks. Ray must be connected.

    Args:
        units: what to work on.
        work: is pickled to the tasks, and its results back; they should be small.
        config: `cpus_per_actor` cores per task (one by default), at most `actors` tasks at once (what fits by default).
        resources: of the cluster.

    Yields:
        Place of the unit and its result, as they finish.

    Raises:
        ValueError: the cluster can never run a task.
        JobError: `work` raised, or its process died again and again.
    """
    cpus = config.cpus_per_actor or (min(1.0, resources.cpus) or 1.0)
    if cpus > resources.cpus and not config.wait_for_nodes:
        raise ValueError(
            f"a task needs {cpus:g} cores, but the cluster has {resources.cpus:g}. Lower --ray.cpus-per-actor or, "
            "where an autoscaler will add nodes, give --ray.wait-for-nodes."
        )
    set_data_context()
    tasks = [pa.table({"index": [index], "unit": [unit.to_json()]}) for index, unit in enumerate(units)]
    if not tasks:
        return
    dataset = ray.data.from_arrow(tasks).map_batches(
        functools.partial(_call, work=work),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=cpus,
        compute=TaskPoolStrategy(size=config.actors),
        ray_remote_args_fn=_task_options,
    )
    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            table = cast("pa.Table", batch)
            for index, result in zip(table["index"].to_pylist(), table["result"].to_pylist(), strict=True):
                yield index, pickle.loads(result)  # noqa: S301 - made by our own task a moment ago
    except Exception as error:
        raise JobError(f"the run broke off: {explain(error)}") from error


def _task_options() -> dict[str, Any]:
    return {"max_retries": _RETRIES}


def _call(task: pa.Table, work: Callable[[Unit], Any]) -> pa.Table:
    """`work` on the unit of a one-row table."""
    result = pickle.dumps(work(Unit.from_json(task["unit"][0].as_py())), protocol=pickle.HIGHEST_PROTOCOL)
    return pa.table({"index": task["index"], "result": pa.array([result], pa.large_binary())})
