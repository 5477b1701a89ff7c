"""Run Ray Train's workers to the end, and print how far they are. Imports PyTorch and Ray Train."""

from __future__ import annotations

import tempfile
import threading
import time
from typing import TYPE_CHECKING, cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from wsss_ray.engine.ray_data import explain
from wsss_ray.errors import JobError
from wsss_ray.storage import retries
from wsss_ray.training.board import Board, State, status_line
from wsss_ray.training.driver import take_over
from wsss_ray.training.plan import Layout
from wsss_ray.training.trainer import make_trainer
from wsss_ray.training.worker import Assignment

if TYPE_CHECKING:
    from wsss_ray.training.job import Run


def train(job: Run, layout: Layout) -> State:
    """Run Ray Train's workers to the end, printing status lines; returns the last state."""
    board = _start_board()
    assignment = Assignment(
        config=job.config,
        classes=job.classes,
        images=job.images,
        units=job.shards.units,
        labels=job.labels,
        order=job.order,
        output=job.output,
        driver=take_over(job.output),
        validation=job.validation,
        board=board,
        feed_cpus=layout.feed_cpus,
        threads=layout.threads,
    )
    errors: list[BaseException] = []
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="wsss-ray-train-", ignore_cleanup_errors=True) as scratch:
        trainer = make_trainer(assignment, layout, scratch=scratch)

        def fit() -> None:
            try:
                trainer.fit()
            except BaseException as error:  # noqa: BLE001 - it is raised again where it is heard
                errors.append(error)

        # In a thread of its own: fit() would take over the process's SIGINT, and end it with status 0.
        thread = threading.Thread(target=fit, name="train", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(job.config.status_seconds)
            state = _ask(board)
            print(status_line(state, job.config.recipe.iterations, time.monotonic() - begun), flush=True)
    state = _ask(board)
    retries.add(state.retries)
    ray.kill(board)
    if state.problem is not None:
        raise JobError(f"training stopped: {state.problem}")
    if errors:
        raise broken_off(explain(errors[0])) from errors[0]
    return state


def _ask(board: ActorHandle) -> State:
    try:
        return cast("State", ray.get(board.state.remote()))
    except RayError as error:
        raise broken_off(explain(error)) from error


def broken_off(reason: str) -> JobError:
    return JobError(
        f"training broke off: {reason}\nThe last checkpoint stands; when the cause is mended, the same command goes on "
        "from there."
    )


def _start_board() -> ActorHandle:
    """On the driver's node, as Ray Train's own controller is: another node may be lost without ending the run."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return cast("ActorHandle", ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote())
