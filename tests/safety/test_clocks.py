"""No decision reads a clock: time is measured for reports alone, so a slow or wrong clock changes nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from repository import REPOSITORY

CLOCKS = {
    "time": {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}
FOR_REPORTS = {
    "engine/telemetry.py:WorkerMetrics.arrived": "the metrics endpoint: how long a unit was queued",
    "engine/progress.py:Progress.__init__": "the status line",
    "engine/progress.py:Progress.add": "the status line",
    "engine/progress.py:Progress.elapsed": "the status line",
    "engine/progress.py:Progress.rate": "the status line",
    "engine/meter.py:Meter.__call__": "seconds of each part of the work",
    "engine/meter.py:Meter.advance": "images inside a unit, for the status line",
    "engine/worker.py:UnitWorker.__init__": "how long an actor waited",
    "engine/worker.py:UnitWorker._work": "how long an actor waited, and a unit was queued",
    "engine/reading.py:read_task": "how long a unit was queued",
    "doctor/check.py:_ask": "the doctor's report of clocks, and how long it waits for a node",
    "doctor/check.py:_keep": "the doctor's report of clocks",
    "doctor/gpu.py:multiply": "the doctor's report of a GPU's speed",
    "doctor/node.py:NodeChecks.run": "the doctor's report of clocks",
    "doctor/node.py:check_input": "the doctor's report of the store",
    "doctor/node.py:check_output": "the doctor's report of the store",
    "labels/sample.py:_time_stage": "the dry run's estimate",
    "pipeline/estimate.py:_sample": "the dry run's estimate",
    "pipeline/estimate.py:_time_updates": "the dry run's estimate",
    "pipeline/job.py:_run_steps": "seconds of each step",
    "training/monitor.py:TrainingMonitor.report_iteration": "the status line",
    "training/session.py:train": "the status line",
}
"""Functions that read a clock, and for what."""
IN_A_CONDITION = {"engine/meter.py:Meter.advance"}
"""Those of them whose reading decides whether to print or report something now."""


@dataclass(frozen=True)
class Reading:
    """A place where a clock is read."""

    function: str
    """File within the package, and qualified name."""
    line: int
    in_condition: bool
    """Within what an `if`, a `while` or the like asks."""


def readings() -> Iterator[Reading]:
    """Every reading of a clock in the package; the demo's trainings are no part of a run."""
    package = REPOSITORY / "wsss_ray"
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if not name.startswith("demo/"):
            yield from _readings_in(ast.parse(path.read_text()), name, (), in_condition=False)


def _readings_in(node: ast.AST, file: str, names: tuple[str, ...], *, in_condition: bool) -> Iterator[Reading]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        names = (*names, node.name)
    if isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime"):
        bare = {alias.name for alias in node.names}
        assert not bare & CLOCKS["time"], f"{file}: import the module, so that its clocks are seen"
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
        owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
        if node.attr in CLOCKS.get(owner, ()):
            yield Reading(f"{file}:{'.'.join(names)}", node.lineno, in_condition)
    for field, value in ast.iter_fields(node):
        asked = in_condition or field == "test" or isinstance(node, ast.Compare | ast.BoolOp)
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _readings_in(child, file, names, in_condition=asked)


def test_clocks_are_read_for_reports_alone() -> None:
    found = list(readings())
    unknown = [f"{one.function}:{one.line}" for one in found if one.function not in FOR_REPORTS]
    assert not unknown, "a clock is read in a place that is not known to report only"
    assert {one.function for one in found} == FOR_REPORTS.keys(), "the list names what reads no clock any more"


def test_no_condition_asks_a_clock_but_for_printing() -> None:
    assert {one.function for one in readings() if one.in_condition} == IN_A_CONDITION


def test_what_decides_reads_no_clock() -> None:
    """Storage, shards, the ledger, the run's claim and the sinks: their choices follow from content alone."""
    deciding = (
        "data/",
        "engine/ledger.py",
        "engine/run.py",
        "labels/sink.py",
        "labels/job.py",
        "models/",
    )
    assert not [one for one in readings() if one.function.startswith(deciding)]
