"""What the engine runs: stages over the rows of one unit, and a sink that commits them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from wsss_ray.engine.cluster import Pool
from wsss_ray.shards.units import Unit


class Meter:
    """Seconds that a unit spent in each named part of the work. For reports: nothing decides by them."""

    def __init__(self) -> None:
        """Start empty."""
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Add the time of the block to `part`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(part, time.perf_counter() - start)

    def add(self, part: str, seconds: float) -> None:
        """Add seconds to `part`."""
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds


class Stage(Protocol):
    """One step of the work, made once in every actor of its pool. Threads may call it at once, as many as
    `calls_per_actor` says."""

    output_schema: pa.Schema
    """Columns of the returned rows. They hold `image_id` and `error` (null, or why this image failed); whatever else an
    image that failed has not got is null."""

    def __call__(self, rows: pa.Table, meter: Meter) -> pa.Table:
        """Work on the rows of one unit (none of which has failed) and return as many, in the same order.

        An exception makes the engine repeat the rows one at a time, and fail those that raise alone.
        """


class Sink(Protocol):
    """Where finished units go. It is pickled to the actors of the last stage."""

    def commit(self, unit: Unit, rows: pa.Table, *, version: str | None) -> Mapping[str, Any]:
        """Write the unit's rows (the last stage's, in the unit's order), atomically, and return its counts.

        Args:
            unit: what the rows belong to.
            rows: all rows of the unit or, where `version` is given, those that were to be run again.
            version: version of the file whose rows of these images are to be replaced, or None to write a new one.
        """

    def counts(self, unit: Unit) -> Mapping[str, Any] | None:
        """Counts of a unit that is committed already, or None."""


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """A stage, where it runs, and how."""

    name: str
    """Stands in front of the reasons of failed images."""
    make: Callable[[], Stage]
    """Makes the stage inside its actor (it is pickled: pass paths of weights, never weights)."""
    pool: Pool
    device_memory: Callable[[], int] | None = None
    """Tells, inside the actor, the bytes that its process has held on its device; for the metrics."""
    calls_per_actor: int = 3
    """Units that one actor works on at once: while one computes, the next is decoded and the last written. With two
    the device would wait whenever the one that computes has resizing to do between its networks."""

    @property
    def units_per_actor(self) -> int:
        """Units that one actor holds: those at work, and one more so that the actor never waits."""
        return self.calls_per_actor + 1

    def describe(self) -> str:
        """One line for the plan."""
        return f"{self.name}: {self.pool}, {self.calls_per_actor} units at once in each"


class WorkerLost(BaseException):
    """Raised by a stage whose process cannot go on (a broken device): the engine ends it, Ray starts another."""
