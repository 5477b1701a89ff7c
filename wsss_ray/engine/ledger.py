"""Record which unit was running when a process died, in an actor outside the processes that do the work.

A unit whose process died twice is run one image at a time, alone in its process, with each image's id recorded first.
Only an image that was alone in its process at two deaths is quarantined. The loss of a node does not count: it says
nothing about the image.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import ray
from ray.actor import ActorHandle

from wsss_ray.engine.progress import Activity

DEATHS_BEFORE_ISOLATION = 2
DEATHS_BEFORE_QUARANTINE = 2
DEATHS_BEFORE_GIVING_UP = 12
"""Deaths of a task without a model, such as reading a unit, after which the unit is left out. Such a task restarts
quickly, so it gets more attempts than one with a model."""


@dataclass(frozen=True, kw_only=True)
class AttemptHistory:
    """Earlier attempts at a unit, which decide how to run it now."""

    retried: bool
    """An earlier attempt was recorded: its output may exist."""
    deaths: int
    """Attempts whose process died."""
    isolate: bool
    """Run the images one at a time, with nothing beside them in the process."""
    quarantined: frozenset[str]
    """Ids of images that must not be run again."""
    survived: frozenset[str]
    """Ids of images that were run alone and did not kill their process."""
    unexplained: int
    """Deaths at which no image was alone in the process."""


@dataclass(kw_only=True)
class _UnitAttempts:
    running: tuple[str, str | None] | None = None
    """Node and, in isolation, image of the attempt that has begun and not ended."""
    attempts: int = 0
    deaths: int = 0
    images: int = 0
    """Images that the running attempt has worked through, for the status line."""
    alone: Counter[str] = field(default_factory=Counter)
    survived: set[str] = field(default_factory=set)


class Ledger:
    """Attempts at units. Runs as an actor without a core; after its own death it starts empty and no image suffers."""

    def __init__(self, node_is_alive: Callable[[str], bool] | None = None) -> None:
        """Start empty.

        Args:
            node_is_alive: returns whether the node of an id is alive; by default Ray's list of nodes decides.
        """
        self._records: dict[tuple[str, str], _UnitAttempts] = {}
        self._loaded: Counter[str] = Counter()
        self._node_is_alive = node_is_alive or _ray_node_is_alive

    def history(self, stage: str, unit: str) -> AttemptHistory:
        """Return the history of a unit. An attempt that began and never ended counts as a death."""
        record = self._records.setdefault((stage, unit), _UnitAttempts())
        if record.running is not None:
            node, image = record.running
            record.running = None
            if self._node_is_alive(node):
                record.deaths += 1
                if image is not None:
                    record.alone[image] += 1
        return AttemptHistory(
            retried=record.attempts > 0,
            deaths=record.deaths,
            isolate=record.deaths >= DEATHS_BEFORE_ISOLATION,
            quarantined=frozenset(
                image for image, deaths in record.alone.items() if deaths >= DEATHS_BEFORE_QUARANTINE
            ),
            survived=frozenset(record.survived),
            unexplained=record.deaths - record.alone.total(),
        )

    def begin(self, stage: str, unit: str, node: str, image: str | None = None) -> None:
        """Record the start of an attempt, at the whole unit or at one image of it alone."""
        record = self._records.setdefault((stage, unit), _UnitAttempts())
        record.running = (node, image)
        record.attempts += 1
        if image is None:
            record.images = 0

    def end(self, stage: str, unit: str, *, finished: bool) -> None:
        """Record an attempt's end without a death; a finished unit is forgotten."""
        record = self._records.get((stage, unit))
        if record is None:
            return
        if record.running is not None and record.running[1] is not None:
            record.survived.add(record.running[1])
        record.running = None
        if finished:
            del self._records[stage, unit]

    def note_loaded(self, stage: str) -> None:
        """Count an actor of the stage that has loaded its models."""
        self._loaded[stage] += 1

    def note_images(self, stage: str, unit: str, images: int) -> None:
        """Record how many images of a running unit the stage has worked through."""
        record = self._records.get((stage, unit))
        if record is not None:  # else the unit finished meanwhile
            record.images = images

    def activity(self, stages: list[str]) -> Activity:
        """Return what the workers of these stages are doing."""
        images = sum(record.images for (stage, _), record in self._records.items() if stage == stages[-1])
        return Activity(loaded={stage: self._loaded[stage] for stage in stages}, images=images)


def open_ledger() -> ActorHandle:
    """Return the ledger of this connection to Ray: one for all runs over it, for an actor takes seconds to start.

    Each run therefore gives its stages names that no other run has.
    """
    context = ray.get_runtime_context()
    return _ledger(context.get_session_name(), context.get_job_id())


@functools.lru_cache(maxsize=1)
def _ledger(session: str, job: str) -> ActorHandle:
    del session, job  # the key of the cache
    return cast("ActorHandle", ray.remote(Ledger).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote())


def _ray_node_is_alive(node_id: str) -> bool:
    return any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())
