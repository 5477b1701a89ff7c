"""Chrome traces of two of the units that a stage works on."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import torch
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile, record_function

from wsss_ray.engine.meter import Meter
from wsss_ray.engine.stage import Stage
from wsss_ray.storage.storage import Storage

FOLDER = "profile"
PROFILED = ("first-unit", "later-unit")
"""Traces to write. That of the first unit also shows the work that a process does once (choosing kernels, taking
memory)."""


class ProfiledStage:
    """A stage that traces two of its calls: the first and a later one.

    Of the actors of a pool, the first to finish each trace writes the file.
    `profile/<stage>-first-unit.json` and `-later-unit.json` open in chrome://tracing or https://ui.perfetto.dev. The
    parts that the stage measures (decode, detect, segment, encode) appear in them by name.
    """

    def __init__(self, stage: Stage, name: str, output: Storage) -> None:
        """Wrap a stage. Traces of an earlier session are kept."""
        self.output_schema = stage.output_schema
        self._stage = stage
        self._output = output
        paths = [f"{FOLDER}/{name}-{which}.json" for which in PROFILED]
        self._missing = [path for path in paths if not output.exists(path)]
        self._free = threading.Lock()

    def __call__(self, rows: pa.Table, meter: Meter) -> pa.Table:
        """Run the stage, with a trace for the first calls: a process can make one trace at a time."""
        if not self._missing or not self._free.acquire(blocking=False):
            return self._stage(rows, meter)
        try:
            return self._traced(rows, meter, self._missing.pop(0))
        finally:
            self._free.release()

    def _traced(self, rows: pa.Table, meter: Meter, path: str) -> pa.Table:
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        whole = _ExperimentalConfig(profile_all_threads=True)  # the device has a thread of its own
        with profile(activities=activities, experimental_config=whole) as trace:
            result = self._stage(rows, NamedMeter(meter))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "trace.json"
            trace.export_chrome_trace(str(file))
            self._output.create(path, file.read_bytes())
        return result


class NamedMeter(Meter):
    """A meter whose parts also appear in the trace."""

    def __init__(self, meter: Meter) -> None:
        """Measure into another meter."""
        super().__init__()
        self.seconds = meter.seconds

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Add the time of the block to `part`, and the block to the trace."""
        with super().__call__(part), record_function(part):
            yield
