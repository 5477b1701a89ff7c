"""What every use of Ray Data here has in common: its settings, and the plain text of its errors."""

from __future__ import annotations

import logging
import re

import ray
from ray.data import DataContext

_RAISED = re.compile(r"(?!ray\.exceptions\.UserCodeException)[\w.]*(Error|Exception)\w*: ")
"""The line of a traceback that says what was raised; Ray Data raises its own exception after it."""


def set_data_context() -> None:
    """Ray Data's own progress and limits off: the status line is ours, and one unit may take an hour on a CPU.

    To be called before a data set is made: it keeps the settings of that moment.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.verbose_progress = False
    context.execution_options.preserve_order = False
    context.execution_no_progress_timeout_s = -1
    context.memory_usage_poll_interval_s = None  # a thread for each task, and nobody reads what it finds
    # Its advice, `memory` in the call of map_batches, is for who writes the job rather than for who runs it.
    context.issue_detectors_config.high_memory_detector_config.detection_time_interval_s = -1
    logging.getLogger("ray.data").setLevel(logging.WARNING)


def explain(error: BaseException) -> str:
    """One line for an error that Ray wrapped, once or more: the type and text of what was raised in the worker."""
    chain = [error]
    while (inner := getattr(chain[-1], "cause", None) or chain[-1].__cause__) is not None and inner not in chain:
        chain.append(inner)
    told = [link for link in chain if str(link).strip()]
    deepest = told[-1] if told else error
    if not isinstance(deepest, ray.exceptions.RayError):
        return f"{type(deepest).__name__}: {deepest}"
    lines = [line for link in told for line in str(link).strip().splitlines()]  # the worker's traceback, Ray's advice
    raised = [line for line in lines if _RAISED.match(line)]
    return raised[-1] if raised else lines[-1]
