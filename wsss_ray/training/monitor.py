"""The monitor of a training: an actor that collects the reports of the workers for the driver, and the status line."""

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
class TrainingState:
    """State of a training, as the monitor knows it."""

    iteration: int = 0
    """Finished updates."""
    loss: float | None = None
    learning_rate: float | None = None
    miou: float | None = None
    starts: list[int] = field(default_factory=list)
    """Iterations at which the workers began in this session. Each one after the first followed a death."""
    unusable: dict[str, str] = field(default_factory=dict)
    """Reason why an image could not be used, by id."""
    retries: Counter[str] = field(default_factory=Counter)
    """Requests to the store that workers and reading tasks repeated, by reason."""
    problem: str | None = None
    """Why training cannot continue."""
    first: tuple[float, int] | None = None
    """Time and iteration of the first report since the workers began."""
    last: float = 0.0
    """Time of the last report."""

    @property
    def rate(self) -> float:
        """Return the iterations per second since the workers began, without their start-up."""
        if self.first is None or self.iteration <= self.first[1]:
            return 0.0
        return (self.iteration - self.first[1]) / max(self.last - self.first[0], 1e-9)


class TrainingMonitor(Ledger):
    """The actor. It reserves no core. If it dies, the run ends, and a rerun continues from the last checkpoint.

    It is also the ledger of the tasks that feed the workers.
    """

    def __init__(self) -> None:
        """Start without a report."""
        super().__init__()
        self._state = TrainingState()
        self._certain = False

    def begin_training(self, iteration: int) -> str | None:
        """Record that the workers begin after `iteration` updates; return the reason if they must not."""
        if self._state.problem is None:
            self._state.starts.append(iteration)
            self._state.iteration = iteration
            self._state.first = None
        return self._state.problem

    def report_iteration(self, *, iteration: int, loss: float, learning_rate: float, miou: float | None) -> None:
        """Record a finished iteration."""
        state = self._state
        state.iteration, state.loss, state.learning_rate, state.last = iteration, loss, learning_rate, time.monotonic()
        state.miou = state.miou if miou is None else miou
        state.first = state.first or (state.last, iteration)

    def report_unusable(self, reasons: list[str]) -> None:
        """Record images that were left out, as "<id>: <reason>"."""
        for text in reasons:
            image_id, _, reason = text.partition(": ")
            self._state.unusable[image_id] = reason

    def report_retries(self, counts: Mapping[str, int]) -> None:
        """Record requests to the store that a process repeated."""
        self._state.retries.update(counts)

    def report_problem(self, problem: str, *, certain: bool = True) -> None:
        """Record why training cannot continue. The first reason that is `certain` is kept."""
        if self._state.problem is None or (certain and not self._certain):
            self._state.problem, self._certain = problem, certain

    def state(self) -> TrainingState:
        """Return the state of the training."""
        return self._state


def send_retries(monitor: ActorHandle) -> None:
    """Send the monitor the requests that this process has repeated since the last call."""
    counts = retries.take()
    if counts:
        ray.get(monitor.report_retries.remote(counts))


def status_line(state: TrainingState, iterations: int, elapsed: float) -> str:
    """Return one line about a run of so many iterations, `elapsed` seconds after its start."""
    head = f"{state.iteration:,} / {iterations:,} iterations ({state.iteration / iterations:.1%})"
    if state.first is None or state.loss is None or state.learning_rate is None:
        doing = "the workers are at their first iterations" if state.starts else "starting the workers"
        return f"{head} | {doing}, {elapsed:.0f} s so far"
    parts = [head, f"{state.rate:.2f} iterations/s", f"loss {state.loss:.3f}", f"lr {state.learning_rate:.2e}"]
    if state.miou is not None:
        parts.append(f"mIoU {state.miou:.3f}")
    if state.unusable:
        parts.append(f"{len(state.unusable):,} unusable")
    if state.rate:
        parts.append(f"{format_seconds((iterations - state.iteration) / state.rate)} left")
    return " | ".join(parts)
