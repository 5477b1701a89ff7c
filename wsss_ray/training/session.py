"""A session of a training: start the monitor and Ray Train's workers, print status lines, return the last state."""

from __future__ import annotations

import tempfile
import threading
import time
from typing import TYPE_CHECKING, cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from wsss_ray.engine.ownership import Ownership
from wsss_ray.engine.ray_data import explain
from wsss_ray.errors import JobError
from wsss_ray.storage import retries
from wsss_ray.training.monitor import TrainingMonitor, TrainingState, status_line
from wsss_ray.training.plan import Allocation
from wsss_ray.training.trainer import make_trainer
from wsss_ray.training.worker import Assignment

if TYPE_CHECKING:
    from wsss_ray.training.job import TrainingRun

DRIVER_FILE = "driver.json"
"""Names the driver that trains into an output."""


def train(training: TrainingRun, allocation: Allocation) -> TrainingState:
    """Run Ray Train's workers to the end. Ray must be connected.

    Raises:
        JobError: the training cannot continue, or was interrupted.
    """
    config = training.config
    monitor = _start_monitor()
    assignment = Assignment(
        config=config,
        classes=training.classes,
        images=training.images,
        units=training.shards.units,
        labels=training.labels,
        order=training.order,
        output=training.output,
        ownership=Ownership.take(training.output, DRIVER_FILE),
        validation=training.validation,
        monitor=monitor,
        feed_cpus=allocation.feed_cpus,
        threads=allocation.threads,
    )
    errors: list[BaseException] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="wsss-ray-train-", ignore_cleanup_errors=True) as scratch:
        trainer = make_trainer(assignment, allocation, scratch=scratch)

        def fit() -> None:
            try:
                trainer.fit()
            except BaseException as error:  # noqa: BLE001 - it is raised again below
                errors.append(error)

        # In a thread of its own: fit() would take over the process's SIGINT, and end it with status 0.
        thread = threading.Thread(target=fit, name="train", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(config.status_seconds)
            state = _read_state(monitor)
            print(status_line(state, config.recipe.iterations, time.monotonic() - started), flush=True)
    state = _read_state(monitor)
    retries.add(state.retries)
    ray.kill(monitor)
    if state.problem is not None:
        raise JobError(f"training stopped: {state.problem}")
    if errors:
        raise broken_off(explain(errors[0])) from errors[0]
    return state


def broken_off(reason: str) -> JobError:
    """Return the error of a training that was interrupted."""
    return JobError(
        f"training was interrupted: {reason}\nThe last checkpoint is kept; once the cause is fixed, the same command "
        "continues from it."
    )


def _read_state(monitor: ActorHandle) -> TrainingState:
    try:
        return cast("TrainingState", ray.get(monitor.state.remote()))
    except RayError as error:
        raise broken_off(explain(error)) from error


def _start_monitor() -> ActorHandle:
    """Start the monitor on the driver's node, like Ray Train's controller: other nodes may fail without harm."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return cast("ActorHandle", ray.remote(TrainingMonitor).options(num_cpus=0, scheduling_strategy=here).remote())
