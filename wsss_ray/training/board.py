"""Where the workers say how far they are, and the driver reads it: an actor, and the status line made of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import ray
from ray.actor import ActorHandle

from wsss_ray.engine.ledger import Ledger
from wsss_ray.engine.progress import format_seconds
from wsss_ray.storage import retries


@dataclass(kw_only=True)
class State:
    """What is known of a run."""

    iteration: int = 0
    """Updates made."""
    loss: float | None = None
    learning_rate: float | None = None
    miou: float | None = None
    starts: list[int] = field(default_factory=list)
    """Iterations at which the workers began, the first of the session first: each further one followed a death."""
    unusable: dict[str, str] = field(default_factory=dict)
    """Why images could not be used, by id."""
    retries: Counter[str] = field(default_factory=Counter)
    """Requests to the store that workers and reading tasks made again, by reason."""
    problem: str | None = None
    """Why training cannot go on."""
    first: tuple[float, int] | None = None
    """When the workers, since they began, first told of an iteration, and which."""
    last: float = 0.0
    """When they last did."""

    @property
    def rate(self) -> float:
        """Iterations per second since the workers began, their start-up left out."""
        if self.first is None or self.iteration <= self.first[1]:
            return 0.0
        return (self.iteration - self.first[1]) / max(self.last - self.first[0], 1e-9)


class Board(Ledger):
    """The actor; it holds no core. Should it die, the run ends, and a rerun goes on from the last checkpoint.

    It is also the ledger of the tasks that feed the workers.
    """

    def __init__(self) -> None:
        """Start empty."""
        super().__init__()
        self._state = State()
        self._certain = False

    def begin_training(self, iteration: int) -> str | None:
        """The workers begin after this many iterations; returns why they should not, if so."""
        if self._state.problem is None:
            self._state.starts.append(iteration)
            self._state.iteration = iteration
            self._state.first = None
        return self._state.problem

    def tell(self, *, iteration: int, loss: float, learning_rate: float, miou: float | None) -> None:
        """An iteration is done."""
        state = self._state
        state.iteration, state.loss, state.learning_rate, state.last = iteration, loss, learning_rate, time.monotonic()
        state.miou = state.miou if miou is None else miou
        state.first = state.first or (state.last, iteration)

    def unusable(self, reasons: list[str]) -> None:
        """Images were left out: "<id>: <reason>"."""
        for text in reasons:
            image_id, _, reason = text.partition(": ")
            self._state.unusable[image_id] = reason

    def retried(self, counts: Mapping[str, int]) -> None:
        """A process made requests to the store again."""
        self._state.retries.update(counts)

    def fail(self, problem: str, *, certain: bool = True) -> None:
        """Training cannot go on; the first reason counts that is `certain`."""
        if self._state.problem is None or (certain and not self._certain):
            self._state.problem, self._certain = problem, certain

    def state(self) -> State:
        """All of it."""
        return self._state


def tell_of_retries(board: ActorHandle) -> None:
    """Hand on what this process asked the store for again since it last did so."""
    counts = retries.take()
    if counts:
        ray.get(board.retried.remote(counts))


def status_line(state: State, iterations: int, elapsed: float) -> str:
    """One line of how far a run of so many iterations is, after so many seconds."""
    head = f"{state.iteration:,} / {iterations:,} iterations ({state.iteration / iterations:.1%})"
    if state.first is None or state.loss is None or state.learning_rate is None:
        return f"{head} | starting, {elapsed:.0f} s so far"
    parts = [head, f"{state.rate:.2f} iterations/s", f"loss {state.loss:.3f}", f"lr {state.learning_rate:.2e}"]
    if state.miou is not None:
        parts.append(f"mIoU {state.miou:.3f}")
    if state.unusable:
        parts.append(f"{len(state.unusable):,} unusable")
    if state.rate:
        parts.append(f"{format_seconds((iterations - state.iteration) / state.rate)} left")
    return " | ".join(parts)
