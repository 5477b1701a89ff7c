"""Measure the cost of Ray and of the work around the networks: with the demo's tiny models, and without models.

    python benchmarks/pipeline.py [--images 640] [--rounds 1] [--photos DIR] [--json FILE]

"Ray" is the engine with as many actors as cores, "loop" as many bare processes that read, label and write unit by unit
with the same stage. Images/s are those of the steady state (15 to 85 % of the images), without start-up. The parts are
milliseconds of the actors' clock per image. "outside the models" is the CPU time of all processes per photo of 640 x
480 through the engine without networks, eight boxes each, in the steady state; "of it" is the same stage in one bare
process, its parts in milliseconds of CPU ("decode" includes resizing). The exact path resizes with Pillow.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import ray
from measuring import TUNED, machine, print_table, write_json
from running import Recorder, start_ray

from wsss_ray.classes import ClassSet
from wsss_ray.config import LabelConfig, parse
from wsss_ray.engine.meter import Meter
from wsss_ray.engine.resources import Pool
from wsss_ray.engine.run import run_units
from wsss_ray.engine.stage import Stage, StageSpec
from wsss_ray.engine.task import UnitReport, UnitTask
from wsss_ray.labels.sink import LabelSink
from wsss_ray.shards.image_shards import ShardSet, read_shard_set, read_unit
from wsss_ray.shards.schemas import READ_COLUMNS
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage

PARTS = ("read", "decode", "detect", "segment", "encode", "write", "wait")
FORMATS = {
    **{"what": "", "images/s": ".2f", "of the loop": ".3f", "CPU ms/image": ".1f"},
    **dict.fromkeys(PARTS, ".1f"),
}


def make_stage(name: str) -> Stage:
    """Create a stage; runs in a worker."""
    if name == "models":
        from wsss_ray.labelling.stages import LabelStage  # noqa: PLC0415 - the driver does not need it

        config = parse(LabelConfig, ["--config", "demo",
                                     "--input", "-", "--output", "-", "--no-png"])  # fmt: skip
        return LabelStage(config, ClassSet.load("demo"), "ignore")
    from simulated import Sleeping, label_stage  # noqa: PLC0415

    return label_stage(Sleeping(detect=0, segment=0), exact=name == "exact")


def make_shards(folder: str, name: str, photos: Path | None, images: int) -> None:
    """Write shards of demo scenes for its models, else of photos; runs in its own process."""
    import simulated  # noqa: PLC0415

    root = Path(folder)
    if name == "models":
        found = sorted((root / "scenes" / "images").glob("*.jpg"))
        tags = [entry.name for entry in ClassSet.load("demo").classes][:3]
        simulated.write_shards(root / name, found, images=images, class_set="demo", tags=tags)
    else:
        simulated.write_shards(root / name, simulated.find_photos(photos, root / "made"), images=images)


class CpuMeter(Meter):
    """A meter of the CPU seconds of the calling thread."""

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Add the time of the block to `part`."""
        start = time.thread_time()
        yield
        self.add(part, time.thread_time() - start)


_worker: list = []


def start_worker(images: Storage, sink: LabelSink, name: str = "models", meter: type[Meter] = Meter) -> None:
    """Create the stage of a bare process."""
    _worker[:] = [make_stage(name), images, sink, meter]


def label_unit(unit: Unit) -> UnitReport:
    """Label a unit, from shard to label file."""
    stage, images, sink, meter_type = _worker
    meter = meter_type()
    with meter("read"):
        rows = read_unit(images, unit, columns=READ_COLUMNS)
    rows = stage(rows.append_column("error", pa.nulls(rows.num_rows, pa.string())), meter)
    with meter("write"):
        counts = sink.commit(unit, rows, version=None)
    return UnitReport(images=unit.rows, counts=dict(counts), seconds=meter.seconds)


def by_loop(units: list[Unit], images: Storage, sink: LabelSink, processes: int) -> Iterator[UnitReport]:
    """Label units in bare processes."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, start_worker, (images, sink)) as pool:
        yield from pool.imap_unordered(label_unit, units, chunksize=1)


def by_ray(units: list[Unit], images: Storage, sink: LabelSink, actors: int, *, name: str) -> Recorder:
    """Label units with the engine."""
    pool = Pool(actors=actors, cpus=0.8, gpus=0.0)
    spec = StageSpec(name="label", make=functools.partial(make_stage, name), pool=pool)
    recorder = Recorder(total=sum(unit.rows for unit in units))
    run_units([UnitTask(unit=unit) for unit in units], images=images, stages=[spec], sink=sink, progress=recorder)
    return recorder


def by_itself(units: list[Unit], images: Storage, sink: LabelSink, name: str) -> tuple[Counter[str], float]:
    """Return the CPU seconds of the parts and of the whole; runs in a bare process."""
    start_worker(images, sink, name, CpuMeter)
    label_unit(units[0])  # warm-up: imports and buffers
    start = time.process_time()
    seconds: Counter[str] = Counter()
    for unit in units:
        seconds.update(label_unit(unit).seconds)
    return seconds, time.process_time() - start


def sink_in(folder: str, classes: str) -> LabelSink:
    """Return a sink with an empty run directory."""
    return LabelSink(
        output=Storage(tempfile.mkdtemp(dir=folder)), classes=ClassSet.load(classes), png=False, grey=False
    )


def compare(folder: str, shards: ShardSet, images: Storage, *, processes: int, rounds: int) -> list[dict]:
    """Run Ray and the loop in turn; return rows of the table."""
    recorders: dict[str, list[Recorder]] = {"loop": [], "Ray": []}
    units = list(shards.units)
    for _ in range(rounds):
        loop = Recorder(total=shards.rows)
        for report in by_loop(units, images, sink_in(folder, "demo"), processes):
            loop.add(report.images, seconds=report.seconds)
        recorders["loop"].append(loop)
        recorders["Ray"].append(by_ray(units, images, sink_in(folder, "demo"), processes, name="models"))
    rates = {name: statistics.median(run.steady_rate for run in runs) for name, runs in recorders.items()}
    return [
        {
            "what": f"{name}, {processes} processes, tiny models",
            "images/s": rates[name],
            "of the loop": rates[name] / rates["loop"],
            "CPU ms/image": 1000 * statistics.median(run.steady_cpu for run in runs),
            **{part: 1000 * runs[-1].seconds[part] / shards.rows for part in PARTS},
        }
        for name, runs in recorders.items()
    ] + [by_parts(folder, shards, images, "models")]


def by_parts(folder: str, shards: ShardSet, images: Storage, name: str) -> dict:
    """Return a row with the milliseconds of CPU of the stage alone, in a bare process."""
    some = list(shards.units)[:10]
    classes = "demo" if name == "models" else "coco"
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seconds, whole = pool.apply(by_itself, (some, images, sink_in(folder, classes), name))
    photos = sum(unit.rows for unit in some)
    return {
        "what": "of it, in a bare process",
        "CPU ms/image": 1000 * whole / photos,
        **{part: 1000 * seconds[part] / photos for part in PARTS},
    }


def outside(folder: str, shards: ShardSet, images: Storage, name: str) -> list[dict]:
    """Return rows with the CPU milliseconds of all processes per photo, and of the stage alone, by parts."""
    recorder = by_ray(list(shards.units), images, sink_in(folder, "coco"), 1, name=name)
    return [
        {
            "what": f"outside the models, {name} path",
            "images/s": recorder.steady_rate,
            "CPU ms/image": 1000 * recorder.steady_cpu,
            **{part: 1000 * recorder.seconds[part] / shards.rows for part in PARTS},
        },
        by_parts(folder, shards, images, name),
    ]


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=640, help="images with models")
    parser.add_argument("--photos-through", type=int, default=3200, help="photos without models")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--photos", type=Path, help="folder of JPEGs; default: generated ones")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.update(TUNED, OMP_NUM_THREADS="1")  # also for the bare processes
    head = machine(1)
    print(head, flush=True)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        draw_scenes(folder)
        for name, count in (("models", options.images), ("photos", options.photos_through)):
            maker = context.Process(target=make_shards, args=(folder, name, options.photos, count))
            maker.start()
            maker.join()
            assert maker.exitcode == 0
        start_ray()
        rows = []
        if options.images:
            images = Storage(f"{folder}/models")
            shards = read_shard_set(images)
            rows += compare(folder, shards, images, processes=options.processes, rounds=options.rounds)
        if options.photos_through:
            images = Storage(f"{folder}/photos")
            shards = read_shard_set(images)
            rows += [row for name in ("fast", "exact") for row in outside(folder, shards, images, name)]
        ray.shutdown()
    print_table(rows, FORMATS)
    write_json(options.json, rows, machine=head)


def draw_scenes(folder: str) -> None:
    """Write 96 scenes of the demo."""
    command = ["-m", "wsss_ray.demo.scenes", "--split", "validation", "--count", "96"]
    subprocess.run([sys.executable, *command, "--output", f"{folder}/scenes"], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
