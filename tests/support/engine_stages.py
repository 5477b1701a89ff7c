"""Stages and a sink small enough to follow, for tests of the engine: they are pickled into its real actors."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from wsss_ray.engine.ledger import DEATHS_BEFORE_GIVING_UP, AttemptHistory, Ledger
from wsss_ray.engine.meter import Meter
from wsss_ray.engine.stage import WorkerLost
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage

LENGTH_SCHEMA = pa.schema([("image_id", pa.string()), ("error", pa.string()), ("length", pa.int64())])


class LengthStage:
    """Length of every image's bytes; what the bytes say makes it raise or kill its own process."""

    output_schema = LENGTH_SCHEMA

    def __init__(self, log: str | None = None, seconds_per_image: float = 0.0) -> None:
        self._log = log
        self._seconds = seconds_per_image
        if log:
            note(log, f"{os.getpid()} started")

    def __call__(self, rows: pa.Table, meter: Meter) -> pa.Table:
        result = []
        with meter("work"):
            for image_id, image in zip(rows["image_id"].to_pylist(), rows["image"].to_pylist(), strict=True):
                if self._log:
                    note(self._log, f"{os.getpid()} {image_id}")
                if self._seconds:
                    time.sleep(self._seconds)
                meter.advance()
                if image.startswith(b"raise"):
                    raise RuntimeError("this image cannot be worked on")
                if image.startswith(b"kill"):
                    os.kill(os.getpid(), signal.SIGKILL)
                if image.startswith(b"lose") and not Path(f"{self._log}.lost").exists():
                    Path(f"{self._log}.lost").touch()
                    raise WorkerLost("this process's device has failed")
                error = "length: refused" if image.startswith(b"refuse") else None
                result.append({"image_id": image_id, "error": error, "length": None if error else len(image)})
        return pa.Table.from_pylist(result, schema=LENGTH_SCHEMA)


class KeepStage:
    """Passes the rows on, with a column more: the first of two pools."""

    output_schema = pa.schema(
        [("image_id", pa.string()), ("image", pa.large_binary()), ("error", pa.string()), ("seen", pa.bool_())]
    )

    def __init__(self, log: str | None = None, seconds_per_image: float = 0.0) -> None:
        self._seconds = seconds_per_image
        if log:
            note(log, f"{os.getpid()} started")

    def __call__(self, rows: pa.Table, meter: Meter) -> pa.Table:
        time.sleep(self._seconds * rows.num_rows)
        if any(image.startswith(b"first") for image in rows["image"].to_pylist()):
            raise RuntimeError("not past the first stage")
        seen = pa.array([True] * rows.num_rows)
        return rows.select(["image_id", "image", "error"]).append_column("seen", seen).cast(self.output_schema)


class HungryStage(LengthStage):
    """LengthStage in a process with little memory left, of which "hungry" images want much."""

    def __init__(self) -> None:
        super().__init__()
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + 300 * 2**20, resource.RLIM_INFINITY))

    def __call__(self, rows: pa.Table, meter: Meter) -> pa.Table:
        for image in rows["image"].to_pylist():
            if image.startswith(b"hungry"):
                bytearray(2 * 2**30)
        return super().__call__(rows, meter)


def limited_files(size: int) -> LengthStage:
    """LengthStage in a process that may write no file above this size in bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    return LengthStage()


@dataclass(frozen=True)
class JsonSink:
    """One JSON file per unit: its rows."""

    output: Storage

    def commit(self, unit: Unit, rows: pa.Table, *, version: str | None, gpus: Sequence[str] = ()) -> Mapping[str, Any]:
        data = rows.to_pylist()
        self.output.write(unit.label_path, json.dumps(data).encode())
        if gpus:
            self.output.write(f"{unit.label_path}.gpus", json.dumps(list(gpus)).encode())
        failed = sum(row["error"] is not None for row in data)
        return {"images": len(data), "statuses": {"failed": failed}}

    def counts(self, unit: Unit) -> Mapping[str, Any] | None:
        if not self.output.exists(unit.label_path):
            return None
        data = json.loads(self.output.read(unit.label_path))
        return {"images": len(data), "statuses": {"failed": sum(row["error"] is not None for row in data)}}


def note(log: str, line: str) -> None:
    """Append a line to a file that several processes write."""
    with Path(log).open("a") as file:
        file.write(line + "\n")


def first_gpu() -> str:
    return "first GPU"


def second_gpu() -> str:
    return "second GPU"


def refuse_to_start() -> LengthStage:
    raise ValueError("the weights are not there")


class ExperiencedLedger(Ledger):
    """Remembers deaths over every unit from before the run: processes die as ever, but fewer have to."""

    def history(self, stage: str, unit: str) -> AttemptHistory:
        history = super().history(stage, unit)
        before = DEATHS_BEFORE_GIVING_UP - 3
        return dataclasses.replace(history, deaths=history.deaths + before, unexplained=history.unexplained + before)
