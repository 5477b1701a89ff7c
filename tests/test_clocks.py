"""No decision reads a clock: time is measured for reports alone, so a slow or wrong clock changes nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from conftest import REPOSITORY

CLOCKS = {
    "time": {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}
FOR_REPORTS = {
    "engine/progress.py": "the status line",
    "engine/stage.py": "seconds of each part of the work",
    "engine/worker.py": "how long an actor waited",
    "engine/metrics.py": "the metrics endpoint",
    "label_writing/sample.py": "the dry run's estimate",
    "pipeline/job.py": "seconds of each step",
    "sharding/job.py": "when to print the status line again",
    "sharding/progress.py": "the status line",
    "training/board.py": "the status line",
    "training/job.py": "the status line",
}
"""Where a clock is read, and for what."""


def clock_readers() -> Iterator[tuple[str, int]]:
    """File and line of every reading of a clock in the package; the demo's trainings are no part of a run."""
    package = REPOSITORY / "wsss_ray"
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime"):
                bare = {alias.name for alias in node.names}
                assert not bare & CLOCKS["time"], f"{name}: import the module, so that its clocks are seen"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
                owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
                if node.attr in CLOCKS.get(owner, ()) and not name.startswith("demo/"):
                    yield name, node.lineno


def test_clocks_are_read_for_reports_alone() -> None:
    readers = list(clock_readers())
    assert len(readers) >= 5, "a scan that finds nothing tests nothing"
    unknown = [f"{name}:{line}" for name, line in readers if name not in FOR_REPORTS]
    assert not unknown, "a clock is read in a place that is not known to report only"


def test_what_decides_reads_no_clock() -> None:
    """Storage, shards, the ledger, the run's claim and the sinks: their choices follow from content alone."""
    deciding = (
        "data/",
        "engine/ledger.py",
        "engine/run.py",
        "label_writing/sink.py",
        "label_writing/job.py",
        "models/",
    )
    assert not [name for name, _ in clock_readers() if name.startswith(deciding)]
