"""Protocols of what the engine runs: stages over the rows of one unit, and a sink that commits them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from wsss_ray.engine.meter import Meter
from wsss_ray.engine.resources import Pool
from wsss_ray.shards.units import Unit

CALLS_PER_ACTOR = 3
"""Units that one actor works on at once by default: while one computes, the next is decoded and the last written. With
two the device would wait while the unit that computes resizes between its networks."""


class Stage(Protocol):
    """One step of the work, created once in every actor of its pool; `calls_per_actor` threads call it at once."""

    output_schema: pa.Schema
    """Columns of the returned rows: `image_id`, `error` (null, or why this image failed) and the stage's own, which are
    null for an image that failed."""

    def __call__(self, rows: pa.Table, meter: Meter) -> pa.Table:
        """Work on the rows of one unit (none of which has failed) and return as many, in the same order.

        An exception makes the engine repeat the rows one at a time, and fail only those that raise.
        """


class Sink(Protocol):
    """Writes finished units. It is pickled to the actors of the last stage."""

    def commit(self, unit: Unit, rows: pa.Table, *, version: str | None, gpus: Sequence[str] = ()) -> Mapping[str, Any]:
        """Write the unit's rows (the last stage's, in the unit's order), atomically, and return its counts.

        Args:
            unit: unit of the rows.
            rows: all rows of the unit or, where `version` is given, those of the images that were run again.
            version: version of the file whose rows of these images are replaced, or None to write a new one.
            gpus: names of the GPUs that worked on the unit, by stage, each once; none on the CPU.
        """

    def counts(self, unit: Unit) -> Mapping[str, Any] | None:
        """Return the counts of a unit that is committed already, or None."""


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """A stage, where it runs, and how."""

    name: str
    """First word of the reasons of failed images."""
    make: Callable[[], Stage]
    """Creates the stage inside its actor (it is pickled: pass paths of weights, never weights)."""
    pool: Pool
    device_memory: Callable[[], int] | None = None
    """Returns, inside the actor, the bytes that its process has held on its device; for the metrics."""
    gpu: Callable[[], str | None] | None = None
    """Returns, inside the actor, the name of the GPU that it computes on; None on the CPU."""
    calls_per_actor: int = CALLS_PER_ACTOR
    """Units that one actor works on at once."""

    @property
    def units_per_actor(self) -> int:
        """Number of units that one actor holds: those it works on, and one more so that it never waits."""
        return self.calls_per_actor + 1

    def describe(self) -> str:
        """Return one line for the plan."""
        return f"{self.name}: {self.pool}, {self.calls_per_actor} units at once in each"

    def recorded_as(self, run: str) -> str:
        """Return the stage's name in the ledger."""
        return f"{run} {self.name}"


class WorkerLost(BaseException):
    """Raised by a stage whose process cannot continue (a broken device): the engine ends it, Ray starts another."""
