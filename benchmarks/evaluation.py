"""Measure speed and memory of the evaluation against a bare loop: the same work per unit in as many plain processes.

Images are drawn: 500 x 375, some ellipses of VOC's classes with an ignored border; the label is the ground truth moved
by three pixels. Speeds are measured from the start of the first unit to the end of the last; start-up is separate.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from measuring import machine, write_json
from PIL import Image, ImageDraw
from running import below

from wsss_ray.classes import ClassSet
from wsss_ray.config import EvaluateConfig, RayConfig
from wsss_ray.engine.cluster import connect
from wsss_ray.engine.mapping import map_units
from wsss_ray.engine.resources import Resources
from wsss_ray.evaluation.boundary import DEFAULT_RATIO
from wsss_ray.evaluation.image import ImageEvaluator
from wsss_ray.evaluation.job import UNITS_PER_TASK, run
from wsss_ray.evaluation.tally import Tally
from wsss_ray.evaluation.unit import UnitEvaluator, UnitResult
from wsss_ray.images.label_png import encode_label
from wsss_ray.labels.inputs import find_labels
from wsss_ray.labels.scores import ClassIndex
from wsss_ray.shards.image_encoding import encode_image_shard, shard_name
from wsss_ray.shards.image_shards import ShardSet, read_shard_set, read_unit
from wsss_ray.shards.label_files import encode_labels
from wsss_ray.shards.schemas import IMAGE_SCHEMA, LABEL_SCHEMA
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage

WIDTH, HEIGHT = 500, 375
DISTINCT = 64
"""Number of different maps; the images of a set repeat them."""
IMAGES_PER_UNIT = 32
UNITS_PER_SHARD = 16
CLASSES = ClassSet.load("voc")


def draw_map(random: np.random.Generator) -> np.ndarray:
    """Return ids (375, 500): up to five ellipses of random classes, each with an ignored border."""
    image = Image.new("L", (WIDTH, HEIGHT), CLASSES.background_id)
    draw = ImageDraw.Draw(image)
    for _ in range(random.integers(1, 6)):
        x, y = random.integers(0, WIDTH), random.integers(0, HEIGHT)
        a, b = random.integers(20, 160, 2)
        class_id = int(random.integers(1, CLASSES.num_classes))
        draw.ellipse((x - a, y - b, x + a, y + b), fill=class_id, outline=CLASSES.ignore_id, width=5)
    return np.array(image)


def make_set(folder: Path, images: int) -> ShardSet:
    """Write image shards and a run of labels into a folder; return the shards."""
    random = np.random.default_rng(0)
    maps = [draw_map(random) for _ in range(DISTINCT)]
    truths = [encode_label(truth, palette=CLASSES.palette()) for truth in maps]
    labels = [encode_label(np.roll(truth, 3, axis=1), palette=CLASSES.palette()) for truth in maps]
    names = {entry.id: entry.name for entry in CLASSES.classes}
    tags = [[names[value] for value in np.unique(truth) if value in names] for truth in maps]
    storage, run_storage = Storage(str(folder / "shards")), Storage(str(folder / "run"))
    per_shard = IMAGES_PER_UNIT * UNITS_PER_SHARD
    starts = range(0, images, per_shard)
    for number, start in enumerate(starts):
        rows = [
            {
                "image_id": f"{index:06d}",
                "source": "",
                "image": b"",
                "height": HEIGHT,
                "width": WIDTH,
                "tags": tags[index % DISTINCT],
                "truth": truths[index % DISTINCT],
            }
            for index in range(start, min(start + per_shard, images))
        ]
        table = pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA)
        groups = [table.slice(first, IMAGES_PER_UNIT) for first in range(0, len(rows), IMAGES_PER_UNIT)]
        data = encode_image_shard(groups, exif="ignore", label_space=CLASSES.label_space_digest, classes="voc")
        storage.write(shard_name(number, len(starts)), data)
    shards = read_shard_set(storage)
    for unit in shards.units:
        rows = [
            {
                **{key: row[key] for key in ("image_id", "height", "width", "tags")},
                "label": labels[int(row["image_id"]) % DISTINCT],
                "status": "ok",
            }
            for row in read_unit(storage, unit).to_pylist()
        ]
        run_storage.write(unit.label_path, encode_labels(pa.Table.from_pylist(rows, schema=LABEL_SCHEMA), unit, {}))
    return shards


def make_evaluator(folder: Path, shards: ShardSet, *, boundary: bool) -> UnitEvaluator:
    """Return the evaluator that the job would use."""
    return UnitEvaluator(
        images=Storage(str(folder / "shards")),
        labels=find_labels(Storage(str(folder / "run")), shards, instances=True),
        truths=None,
        evaluator=ImageEvaluator(
            index=ClassIndex.of(CLASSES),
            ignore_id=CLASSES.ignore_id,
            boundary_ratio=DEFAULT_RATIO if boundary else None,
            smallest_object=EvaluateConfig.smallest_object,
        ),
        palette=CLASSES.palette(),
        subset=None,
        skip_missing=False,
    )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Figures of one pass over a set."""

    rate: float
    """Images per second from the start of the first unit to the end of the last."""
    start: float
    """Seconds before the start of the first unit."""
    cpu: float
    """CPU seconds of the work itself."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """An evaluator that also returns its start and end by the clock, and its CPU seconds."""

    evaluator: UnitEvaluator

    def __call__(self, unit: Unit) -> tuple[UnitResult, float, float, float]:
        """Return the result, start, end and CPU seconds."""
        begin, cpu = time.time(), time.process_time()
        result = self.evaluator(unit)
        return result, begin, time.time(), time.process_time() - cpu


_work: Timed


def start_worker(work: Timed) -> None:
    """Keep the work in a process of the bare loop."""
    global _work  # noqa: PLW0603
    _work = work


def do_work(unit: Unit) -> tuple[UnitResult, float, float, float]:
    """Evaluate one unit in a process of the bare loop."""
    return _work(unit)


def bare_loop(units: Sequence[Unit], work: Timed, processes: int) -> Iterator[tuple[UnitResult, float, float, float]]:
    """Do the work in plain processes."""
    with multiprocessing.get_context("spawn").Pool(processes, start_worker, (work,)) as pool:
        yield from pool.imap_unordered(do_work, units)


def by_ray(
    units: Sequence[Unit], work: Timed, processes: int, resources: Resources
) -> Iterator[tuple[UnitResult, float, float, float]]:
    """Do the work as the job does."""
    config = RayConfig(actors=processes)
    for _, result in map_units(units, work, config=config, resources=resources, units_per_task=UNITS_PER_TASK):
        yield result


def measure(results: Iterator[tuple[UnitResult, float, float, float]], images: int) -> Measured:
    """Sum the results, as the job does; return the figures of the pass."""
    tally = Tally.zero(CLASSES.num_classes)
    start = time.time()
    begins, ends, cpu = [], [], 0.0
    for result, begin, end, seconds in results:
        tally.add(result.tally)
        begins.append(begin)
        ends.append(end)
        cpu += seconds
    return Measured(rate=images / (max(ends) - min(begins)), start=min(begins) - start, cpu=cpu)


def run_job(folder: Path, processes: int) -> float:
    """Return the seconds of the whole job with its tables; Ray must be connected."""
    start = time.monotonic()
    run(
        EvaluateConfig(
            labels=str(folder / "run"),
            images=str(folder / "shards"),
            output=str(folder / "out"),
            ray=RayConfig(actors=processes),
        )
    )
    return time.monotonic() - start


def peak_memory() -> str:
    """Return the peak resident memory of this process and of its Ray workers."""
    peaks: dict[str, int] = {}
    for pid in (os.getpid(), *below(os.getpid())):
        name = "driver" if pid == os.getpid() else "worker"
        status = Path(f"/proc/{pid}/status").read_text()
        if name == "driver" or Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::"):
            kilobytes = int(status.partition("VmHWM:")[2].split()[0])
            peaks[name] = max(peaks.get(name, 0), kilobytes)
    return ", ".join(f"{name} {kilobytes / 1000:.0f} MB" for name, kilobytes in peaks.items())


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000, help="images of the set (the job also runs on a quarter)")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="concurrent tasks, and bare processes")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of bare loop and Ray; the table shows medians")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--no-boundary", dest="boundary", action="store_false", help="without the boundary IoU")
    options = parser.parse_args()
    bare, ray = [], []
    with tempfile.TemporaryDirectory() as name:
        small, full = Path(name) / "small", Path(name) / "full"
        few, shards = make_set(small, options.images // 4), make_set(full, options.images)
        work = Timed(judge=make_evaluator(full, shards, boundary=options.boundary))
        start = time.monotonic()
        with connect(RayConfig()) as resources:
            connected = time.monotonic() - start
            seconds = [run_job(small, options.processes)]
            peaks = [peak_memory()]
            seconds.append(run_job(full, options.processes))
            peaks.append(peak_memory())
            for _ in range(options.rounds):
                bare.append(measure(bare_loop(shards.units, work, options.processes), shards.rows))
                ray.append(measure(by_ray(shards.units, work, options.processes, resources), shards.rows))
    head = machine(1)
    print(f"\n{head}")
    print(f"{shards.rows:,} images of {WIDTH} x {HEIGHT}, {options.processes} processes, {options.rounds} rounds")
    print(f"{'':9}  images/s  work, CPU ms/image  start-up s")
    rows = []
    for title, rounds in (("bare loop", bare), ("Ray", ray)):
        rate, cpu, beside = (statistics.median(getattr(x, key) for x in rounds) for key in ("rate", "cpu", "start"))
        print(f"{title:9}  {rate:8.0f}  {1000 * cpu / shards.rows:18.2f}  {beside:10.1f}")
        rows.append({"what": title, "images/s": rate, "CPU ms/image": 1000 * cpu / shards.rows, "start-up s": beside})
    ratios = [one.rate / other.rate for one, other in zip(ray, bare, strict=True)]
    print(f"Ray / bare: {statistics.median(ratios):.2f} (rounds: {', '.join(f'{ratio:.2f}' for ratio in ratios)})")
    print(f"Ray itself started once, in {connected:.1f} s")
    for count, whole, text in zip((few.rows, shards.rows), seconds, peaks, strict=True):
        print(f"the job with {count:,} images: {whole:.1f} s in all; peak memory: {text}")
        rows.append({"what": "job", "images": count, "seconds": whole, "peak memory": text})
    write_json(options.json, rows, machine=head, ratios=ratios)


if __name__ == "__main__":
    main()
