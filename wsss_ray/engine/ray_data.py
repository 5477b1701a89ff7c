"""Settings of Ray Data, and the plain text of its errors."""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import ray
from ray.data import DataContext
from ray.data._internal.execution.operators.actor_pool_map_operator import ActorPoolMapOperator

_RAISED = re.compile(r"(?!ray\.exceptions\.UserCodeException)[\w.]*(Error|Exception)\w*: ")
"""The line of a traceback that says what was raised; Ray Data raises its own exception after it."""

_ADVICE = b"has constructor arguments in the object store and max_restarts > 0."
"""Part of an error line that Ray prints for every actor pool of Ray Data: advice to Ray Data's developers."""

Parameters = ParamSpec("Parameters")
ResultT = TypeVar("ResultT")


def set_data_context() -> None:
    """Turn off Ray Data's own progress, limits and advice: the status line is ours, and a unit may take an hour.

    Must be called before a data set is created: it keeps the settings of that moment.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.verbose_progress = False
    context.execution_options.preserve_order = False
    context.execution_no_progress_timeout_s = -1
    context.memory_usage_poll_interval_s = None  # a thread per task, whose results are not used
    # Its advice, `memory` in the call of map_batches, is for the authors of a job, not for its users.
    context.issue_detectors_config.high_memory_detector_config.detection_time_interval_s = -1
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    start = ActorPoolMapOperator._start_actor
    if not hasattr(start, "__wrapped__"):
        ActorPoolMapOperator._start_actor = _without_advice(start)  # type: ignore[method-assign]


def _without_advice(call: Callable[Parameters, ResultT]) -> Callable[Parameters, ResultT]:
    """Return the function without the line of advice that Ray's C++ code prints in it; no setting turns it off."""

    @functools.wraps(call)
    def quiet(*args: Parameters.args, **options: Parameters.kwargs) -> ResultT:
        with _filtered_stderr(_ADVICE):
            return call(*args, **options)

    return quiet


@contextmanager
def _filtered_stderr(unwanted: bytes) -> Iterator[None]:
    """Drop the lines that hold a text from this process's standard error while the block runs (on Linux)."""
    if not hasattr(os, "memfd_create"):
        yield
        return
    with os.fdopen(os.memfd_create("stderr"), "w+b") as written:
        stderr = os.dup(2)
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            written.seek(0)
            kept = b"".join(line for line in written if unwanted not in line)
            if kept:
                os.write(2, kept)


def explain(error: BaseException) -> str:
    """Return one line for an error that Ray wrapped: type and text of the exception that the worker raised."""
    chain = [error]
    while (inner := getattr(chain[-1], "cause", None) or chain[-1].__cause__) is not None and inner not in chain:
        chain.append(inner)
    with_text = [link for link in chain if str(link).strip()]
    deepest = with_text[-1] if with_text else error
    if not isinstance(deepest, ray.exceptions.RayError):
        return f"{type(deepest).__name__}: {deepest}"
    lines = [line for link in with_text for line in str(link).strip().splitlines()]  # the traceback, Ray's advice
    raised = [line for line in lines if _RAISED.match(line)]
    return raised[-1] if raised else lines[-1]
