"""Apply a function to many items, each with a small result: in Ray tasks, or in this process for a small job.

Items are units, or whatever a job divides its work into. In Ray tasks a process that dies is replaced and its item
repeated; in this process a file that kills its decoder ends the job.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from wsss_ray.config import RayConfig
from wsss_ray.engine import logs
from wsss_ray.engine.resources import Resources
from wsss_ray.engine.task import describe_error
from wsss_ray.errors import JobError
from wsss_ray.shards.units import Unit

if TYPE_CHECKING:
    from wsss_ray.engine.ray_mapping import Isolation  # needs Ray

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def map_units(
    units: Sequence[Unit],
    work: Callable[..., ResultT],
    *,
    config: RayConfig,
    resources: Resources | None,
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
    resources: Resources | None,
    items_per_task: int = 1,
    isolate: Callable[[ItemT, Isolation], ResultT] | None = None,
) -> Iterator[tuple[int, ResultT]]:
    """Call `work` on every item.

    Args:
        items: what to work on. For Ray tasks they are pickled.
        work: for Ray tasks it is pickled, and its results back; they should be small.
        names: a name for each item, all different, for error messages.
        config: `cpus_per_actor` cores per task (one by default), at most `actors` tasks at once (what fits by default).
        resources: of the connected cluster; None to work in this process, one item after the other (see
            `connect_for`).
        items_per_task: most items that one task takes. A task costs Ray some 40 ms of processors: give several items of
            quick work. Few items are still spread over the tasks that can run at once.
        isolate: is called in place of `work` on an item that was running when two processes died, to find out which
            part of the item kills its process. Ray tasks only.

    Yields:
        Index of the item and its result, as they finish.

    Raises:
        ValueError: the cluster can never run a task.
        JobError: `work` raised, or the process of one item died repeatedly (Ray by itself would retry without end).
    """
    if resources is None:
        for index, item in enumerate(items):
            yield index, _call(work, item, names[index])
        return
    from wsss_ray.engine.ray_mapping import map_in_tasks  # noqa: PLC0415 - Ray Data, which a small job does without

    yield from map_in_tasks(
        items,
        work,
        names=names,
        config=config,
        resources=resources,
        items_per_task=items_per_task,
        isolate=isolate,
    )


def _apply(work: Callable[..., ResultT], arguments: tuple[Any, ...]) -> ResultT:
    return work(*arguments)


def _call(work: Callable[[ItemT], ResultT], item: ItemT, name: str) -> ResultT:
    """Return the result of one item, worked on in this process."""
    try:
        with logs.at(unit=name):
            return work(item)
    except Exception as error:
        logs.failure("the work failed", error)
        raise JobError(f"{name}: {describe_error(error)}") from error
