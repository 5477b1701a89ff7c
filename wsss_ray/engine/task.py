"""What the engine is asked to do, and what it tells of it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field

from wsss_ray.shards.units import Unit


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
