"""Units on their way through the engine: what to run, what was done, and how both travel between processes."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from wsss_ray.shards.units import Unit
from wsss_ray.storage import retries
from wsss_ray.storage.redaction import masked

TASK_SCHEMA = pa.schema(
    [
        ("unit", pa.string()),
        ("only", pa.list_(pa.string())),
        ("version", pa.string()),
        ("rows", pa.large_binary()),
        ("report", pa.string()),
    ]
)
"""One unit between two steps: its UnitTask, its rows as an Arrow stream, and its UnitReport as JSON. One row is one
unit, which Ray Data cannot split."""


@dataclass(frozen=True, kw_only=True)
class UnitTask:
    """A unit to run, whole or in part."""

    unit: Unit
    only: tuple[str, ...] | None = None
    """Ids of the images to run again; None: all."""
    version: str | None = None
    """Version of the label file that takes these images' rows, with `only`."""

    @property
    def images(self) -> int:
        """Images to run."""
        return self.unit.rows if self.only is None else len(self.only)

    def to_json(self) -> str:
        """Return the text that the first step takes."""
        return json.dumps({"unit": self.unit.to_json(), "only": self.only, "version": self.version})


@dataclass(kw_only=True)
class UnitReport:
    """Result of a unit, as the driver receives it."""

    images: int = 0
    counts: dict[str, Any] | None = None
    """The sink's counts, once the unit is committed."""
    seconds: dict[str, float] | None = None
    retries: dict[str, int] | None = None
    """Requests to a store that this unit's workers repeated, by reason."""
    gpus: list[str] = field(default_factory=list)
    """Names of the GPUs that worked on it, by stage, each once."""
    read_at: float | None = None
    """When it was read, in seconds since 1970: for the metrics."""
    problem: str | None = None
    """Why the whole unit could not be read; the run continues without it."""
    fatal: str | None = None
    """Why no unit can continue (a full disk, an unreachable store): Ray Data loses the text of what is raised."""

    def add(self, seconds: dict[str, float]) -> None:
        """Add seconds by part of the work."""
        total = self.seconds or {}
        self.seconds = {part: total.get(part, 0.0) + seconds.get(part, 0.0) for part in {*total, *seconds}}

    def to_table(self, task: dict[str, Any], rows: pa.Table | None) -> pa.Table:
        """Return the unit in TASK_SCHEMA, with the requests that this process has repeated since it last reported."""
        self.retries = dict(Counter(self.retries or {}) + Counter(retries.take()))
        stream = None if rows is None else _to_stream(rows)
        columns = [[task["unit"]], [task["only"]], [task["version"]], pa.array([stream], pa.large_binary())]
        return pa.table([*columns, [json.dumps(vars(self))]], schema=TASK_SCHEMA)

    @staticmethod
    def from_json(text: str) -> UnitReport:
        """Return the report of a row in TASK_SCHEMA."""
        return UnitReport(**json.loads(text))


@dataclass(kw_only=True)
class RunOutcome:
    """Result of one call of `run_units`."""

    images: int = 0
    seconds_elapsed: float = 0.0
    rate: float = 0.0
    """Images per second in steady state."""
    seconds: Counter[str] = field(default_factory=Counter)
    """Actor seconds by part of the work."""
    retries: Counter[str] = field(default_factory=Counter)
    """Requests to the store that the driver and the workers repeated, by reason."""
    problems: list[str] = field(default_factory=list)
    """Units that could not be read, with the reason."""


def describe_error(error: Exception) -> str:
    """Return type and text of an exception, secrets masked."""
    return masked(f"{type(error).__name__}: {error}")


def _to_stream(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue().to_pybytes()


def rows_from_stream(data: bytes) -> pa.Table:
    """Return the rows of a unit in TASK_SCHEMA."""
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()
