"""Test endurance: many images through simulated GPU actors, one of which is killed every few seconds.

Images are a few kB of random bytes. An actor holds its simulated device for some milliseconds per image and returns a
digest of the bytes, so that every result can be checked. The script asserts that nothing is lost, doubled or changed,
and that the memory of driver and object store does not grow; it prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow as pa
import ray
from measuring import machine
from running import below, start_ray

from wsss_ray.config import RayConfig
from wsss_ray.engine.cluster import connect
from wsss_ray.engine.meter import Meter
from wsss_ray.engine.progress import Progress
from wsss_ray.engine.resources import Pool
from wsss_ray.engine.run import run_units
from wsss_ray.engine.stage import StageSpec
from wsss_ray.engine.task import RunOutcome, UnitTask
from wsss_ray.shards.image_encoding import encode_image_shard, shard_name
from wsss_ray.shards.image_shards import ShardSet, read_shard_set
from wsss_ray.shards.schemas import IMAGE_SCHEMA
from wsss_ray.shards.units import Unit
from wsss_ray.storage.local_files import sweep
from wsss_ray.storage.storage import Storage

UNITS_PER_SHARD = 25
SAMPLE_SECONDS = 2.0
FLAT_MEGABYTES = 100
"""Largest growth, in MB, of the mean memory from the middle third of a run to the last third."""


class SimulatedStage:
    """Holds its device for some time per image, and returns a digest of the bytes."""

    output_schema = pa.schema([("image_id", pa.string()), ("error", pa.string()), ("digest", pa.string())])

    def __init__(self, log: str, seconds_per_image: float) -> None:
        """Record the process, so that it can be killed."""
        self._seconds = seconds_per_image
        self._device = threading.Lock()
        with Path(log).open("a") as file:
            file.write(f"{os.getpid()}\n")

    def __call__(self, rows: pa.Table, meter: Meter) -> pa.Table:
        """Return the digests of the rows."""
        with self._device, meter("device"):
            time.sleep(self._seconds * rows.num_rows)
        digests = [hashlib.sha256(image.as_buffer()).hexdigest() for image in rows["image"]]
        return rows.select(["image_id", "error"]).append_column("digest", pa.array(digests))


@dataclass(frozen=True)
class JsonSink:
    """Writes one JSON file per unit: ids, digests, errors."""

    output: Storage

    def commit(self, unit: Unit, rows: pa.Table, *, version: str | None) -> Mapping[str, Any]:
        """Write the unit."""
        del version
        self.output.write(unit.label_path, json.dumps(rows.to_pylist()).encode())
        return {"images": rows.num_rows, "statuses": {"failed": rows.num_rows - rows["error"].null_count}}

    def counts(self, unit: Unit) -> Mapping[str, Any] | None:
        """Return the counts of a finished unit."""
        if not self.output.exists(unit.label_path):
            return None
        rows = json.loads(self.output.read(unit.label_path))
        return {"images": len(rows), "statuses": {"failed": sum(row["error"] is not None for row in rows)}}


def make_shards(folder: Path, images: int, images_per_unit: int, size: int) -> tuple[ShardSet, dict[str, str]]:
    """Write shards of random bytes; return them, and the digest that each image must get."""
    draw = random.Random(0)
    expected = {}
    storage = Storage(str(folder))
    per_shard = UNITS_PER_SHARD * images_per_unit
    starts = range(0, images, per_shard)
    for number, start in enumerate(starts):
        rows = []
        for index in range(start, min(start + per_shard, images)):
            data = draw.randbytes(size)
            row = {"image_id": f"{index:07d}", "source": "", "image": data, "height": 1, "width": 1, "tags": []}
            rows.append({**row, "truth": None})
            expected[f"{index:07d}"] = hashlib.sha256(data).hexdigest()
        table = pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA)
        groups = [table.slice(first, images_per_unit) for first in range(0, len(rows), images_per_unit)]
        data = encode_image_shard(groups, exif="ignore", label_space="soak", classes="soak")
        storage.write(shard_name(number, len(starts)), data)
    return read_shard_set(storage), expected


@dataclass
class Watch:
    """Measurements and kills during the run."""

    kills: int = 0
    spared: int = 0
    """Kills that were left out because fewer than half of the actors were running."""
    driver_mb: list[float] = field(default_factory=list)
    raylet_mb: list[float] = field(default_factory=list)
    store_mb: list[float] = field(default_factory=list)


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return int(status.partition("VmRSS:")[2].split()[0]) / 1000


def raylet_pid() -> int:
    """Return the raylet that this process started."""
    for pid in below(os.getpid()):
        if b"raylet/raylet" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise RuntimeError("this process has started no raylet")


@contextmanager
def watching(log: Path, actors: int, kill_seconds: float) -> Iterator[Watch]:
    """Sample memory and kill actors while the block runs."""
    watch = Watch()
    stop = threading.Event()
    raylet = raylet_pid()

    def sample() -> None:
        while not stop.wait(SAMPLE_SECONDS):
            watch.driver_mb.append(resident_mb(os.getpid()))
            watch.raylet_mb.append(resident_mb(raylet))
            used = ray.cluster_resources()["object_store_memory"]
            used -= ray.available_resources().get("object_store_memory", 0.0)
            watch.store_mb.append(used / 1e6)

    def kill() -> None:
        draw = random.Random(0)
        while not stop.wait(kill_seconds):
            pids = {int(line) for line in log.read_text().splitlines()} if log.exists() else set()
            alive = sorted(pids & set(below(os.getpid())))
            if len(alive) < actors / 2:
                watch.spared += 1
            else:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(draw.choice(alive), signal.SIGKILL)
                    watch.kills += 1

    threads = [threading.Thread(target=work) for work in (sample, kill)]
    for thread in threads:
        thread.start()
    try:
        yield watch
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def growth(samples: list[float]) -> float:
    """Return the mean of the last third minus that of the middle third."""
    third = max(1, len(samples) // 3)
    return mean(samples[-third:]) - mean(samples[-2 * third : -third] or samples)


def run(options: argparse.Namespace, folder: Path) -> tuple[ShardSet, dict[str, str], RunOutcome, Watch, float]:
    """Run everything in a folder."""
    shards, expected = make_shards(folder / "in", options.images, options.images_per_unit, options.bytes)
    log = folder / "actors.log"
    spec = StageSpec(
        name="simulated",
        make=functools.partial(SimulatedStage, str(log), options.milliseconds / 1000),
        pool=Pool(actors=options.actors, cpus=0.1, gpus=1),
    )
    start_ray(gpus=options.actors)
    with connect(RayConfig()):
        start = time.monotonic()
        with watching(log, options.actors, options.kill_seconds) as watch:
            outcome = run_units(
                [UnitTask(unit=unit) for unit in shards.units],
                images=Storage(str(folder / "in")),
                stages=[spec],
                sink=JsonSink(Storage(str(folder / "out"))),
                progress=Progress(total=shards.rows, done=0, every_seconds=10),
            )
        return shards, expected, outcome, watch, time.monotonic() - start


def check(folder: Path, shards: ShardSet, expected: dict[str, str]) -> dict[str, int]:
    """Compare every row with what it must be; return counts."""
    labels = folder / "out" / "labels"
    sweep(str(labels))  # as the next run does: what a killed writer left is removed, and any other file counts
    files = list(labels.iterdir())
    rows = [row for unit in shards.units for row in json.loads((folder / "out" / unit.label_path).read_text())]
    return {
        "units": len(shards.units),
        "files": len(files),
        "images": len(expected),
        "rows": len(rows),
        "unique": len({row["image_id"] for row in rows}),
        "failed": sum(row["error"] is not None for row in rows),
        "wrong": sum(row["error"] is None and row["digest"] != expected[row["image_id"]] for row in rows),
        "out of order": sum(row["image_id"] != image_id for row, image_id in zip(rows, expected, strict=True)),
    }


def main() -> None:
    """Run the benchmark, check the results, print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--images-per-unit", type=int, default=32)
    parser.add_argument("--bytes", type=int, default=20_000, help="size of an image")
    parser.add_argument("--actors", type=int, default=8, help="simulated GPUs")
    parser.add_argument("--milliseconds", type=float, default=80.0, help="device time per image")
    parser.add_argument("--kill-seconds", type=float, default=5.0, help="seconds between two kills")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        shards, expected, outcome, watch, seconds = run(options, Path(name))
        counts = check(Path(name), shards, expected)
    memory = {"driver": watch.driver_mb, "raylet": watch.raylet_mb, "object store": watch.store_mb}
    figures = {
        **counts,
        "actors": options.actors,
        "kills": watch.kills,
        "kills spared": watch.spared,
        "seconds": round(seconds, 1),
        "images_per_second": round(outcome.images / seconds, 1),
        "of_the_devices": round(outcome.images * options.milliseconds / 1000 / options.actors / seconds, 3),
        "memory_mb": {
            what: {"most": round(max(samples)), "growth": round(growth(samples), 1)} for what, samples in memory.items()
        },
    }
    print(f"\n{machine(1)}")
    print(f"{counts['images']:,} images through {options.actors} actors, one killed every {options.kill_seconds:g} s")
    for what in ("rows", "unique", "failed", "wrong", "out of order", "kills", "kills spared", "seconds"):
        print(f"{what:13} {figures[what]:>10,}")
    print(f"{'images/s':13} {figures['images_per_second']:>10} ({figures['of_the_devices']:.0%} of the devices' time)")
    print("memory, MB          most  last third less middle third")
    for what, entry in figures["memory_mb"].items():
        print(f"{what:15} {entry['most']:>8,}  {entry['growth']:>+8.1f}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({**figures, "samples_mb": memory}, indent=2))
    assert counts["rows"] == counts["unique"] == counts["images"]
    assert counts["files"] == counts["units"]
    assert counts["failed"] == counts["wrong"] == counts["out of order"] == 0
    assert all(entry["growth"] < FLAT_MEGABYTES for entry in figures["memory_mb"].values()), "memory grows"


if __name__ == "__main__":
    main()
