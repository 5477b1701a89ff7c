"""The resumable run: it knows units, stages and processes, and no tensor."""

from wsss_ray.engine.mapping import map_units
from wsss_ray.engine.progress import Progress, format_seconds
from wsss_ray.engine.run import Outcome, Task, claim, run_units, units_to_do
from wsss_ray.engine.stage import Meter, Sink, Stage, StageSpec, WorkerLost
from wsss_ray.engine.worker import Report

__all__ = [
    "Meter",
    "Outcome",
    "Progress",
    "Report",
    "Sink",
    "Stage",
    "StageSpec",
    "Task",
    "WorkerLost",
    "claim",
    "format_seconds",
    "map_units",
    "run_units",
    "units_to_do",
]
