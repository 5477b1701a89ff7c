"""Measure a cluster of fake GPUs on this machine: stages sleep instead of networks, the rest of the run is real.

    python benchmarks/cluster.py [--images 8000] [--gpus 16] [--placement fused split] [--photos DIR] [--json FILE]
    python benchmarks/cluster.py --images 82081            # COCO train2014: a quarter of an hour
    python benchmarks/cluster.py --gpus 1 2 4 8 16 --units-per-gpu 12        # scaling

A GPU takes 160 ms an image (split: 16 to detect, 144 to segment), so that two cores can feed 16 of them. JPEGs are
decoded and resized, masks joined, labels encoded and written. "busy" is the share of time in which the GPUs of the slow
stage compute: "steady" from 15 to 85 % of the images, "whole" from the moment when every actor has had a unit (on a
cluster 16 processes do not start on two cores) to the last label file, "with start" from the call. "driver MB" is its
peak memory minus the memory before the run.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import tempfile
import time
from pathlib import Path

import ray
from measuring import machine, print_table, write_json
from running import Recorder, resident_mb, start_ray, watching_memory

from wsss_ray.classes import ClassSet
from wsss_ray.engine.resources import Pool
from wsss_ray.engine.run import run_units
from wsss_ray.engine.stage import Stage, StageSpec
from wsss_ray.engine.task import UnitTask
from wsss_ray.labels.sink import LabelSink
from wsss_ray.shards.image_shards import ShardSet, read_shard_set
from wsss_ray.storage.storage import Storage

SECONDS = 0.16
DETECTOR_SHARE = 0.1
IMAGES_PER_SHARD = 3040
FORMATS = {
    **{"placement": "", "GPUs": "d", "images": ",d", "images/s": ".1f", "busy, steady": ".3f", "busy, whole": ".3f"},
    **{"with start": ".3f", "scaling": ".3f", "start, s": ".0f", "CPU ms/image": ".1f", "driver MB": ".0f"},
    **{"object store MB": ".0f", "problems": "d"},
}


def make_shards(folder: str, photos: Path | None, images: int) -> None:
    """Write the shards; runs in its own process, to keep its memory out of the driver's."""
    from simulated import find_photos, write_shards  # noqa: PLC0415

    root = Path(folder)
    write_shards(
        root / "shards", find_photos(photos, root / "photos"), images=images, links=max(1, images // IMAGES_PER_SHARD)
    )


def make_stage(name: str) -> Stage:
    """Create a stage; runs in an actor."""
    import simulated  # noqa: PLC0415 - it imports the networks' libraries, which the driver does not need

    times = simulated.Sleeping(detect=SECONDS * DETECTOR_SHARE, segment=SECONDS * (1 - DETECTOR_SHARE))
    kinds = {
        "label": simulated.label_stage,
        "detect": simulated.detect_stage,
        "segment": simulated.segment_stage,
    }
    return kinds[name](times)


def stages_of(placement: str, gpus: int) -> tuple[tuple[StageSpec, ...], float, int]:
    """Return the stages, and the seconds per image and GPUs of the slow one."""
    detectors = max(1, gpus // 5)
    actors = {"label": gpus} if placement == "fused" else {"detect": detectors, "segment": gpus - detectors}
    stages = tuple(
        StageSpec(name=name, make=functools.partial(make_stage, name), pool=Pool(actors=count, cpus=0.05, gpus=1.0))
        for name, count in actors.items()
    )
    seconds = SECONDS if placement == "fused" else SECONDS * (1 - DETECTOR_SHARE)
    return stages, seconds, stages[-1].pool.actors


def simulate(placement: str, gpus: int, shards: ShardSet, images: Storage, *, units: int) -> dict:
    """Run once; return a row of the table."""
    stages, seconds, slow_gpus = stages_of(placement, gpus)
    tasks = [UnitTask(unit=unit) for unit in shards.units[:units]]
    total = sum(task.images for task in tasks)
    recorder = Recorder(total=total)
    with tempfile.TemporaryDirectory() as folder, watching_memory() as memory:
        sink = LabelSink(output=Storage(folder), classes=ClassSet.load("coco"), png=False, grey=False)
        start = time.monotonic()
        outcome = run_units(tasks, images=images, stages=stages, sink=sink, progress=recorder)
        end = time.monotonic()
        written = len(Storage(folder).list("labels"))
    assert written == len(tasks), (written, len(tasks))
    unit_seconds = tasks[0].images * seconds
    filled = recorder.finished[slow_gpus - 1][0] - unit_seconds  # from about here every actor computes
    rate = recorder.steady_rate
    return {
        "placement": placement,
        "GPUs": gpus,
        "images": total,
        "images/s": rate,
        "busy, steady": rate * seconds / slow_gpus,
        "busy, whole": total * seconds / slow_gpus / (end - filled),
        "with start": total * seconds / slow_gpus / (end - start),
        "start, s": filled - start,
        "CPU ms/image": 1000 * recorder.steady_cpu,
        "driver MB": max(memory.driver) - memory.driver[0],
        "object store MB": max(memory.store),
        "problems": len(outcome.problems),
    }


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--gpus", type=int, nargs="*", default=[16])
    parser.add_argument("--units-per-gpu", type=int, help="units of 32 images for each GPU, instead of all images")
    parser.add_argument("--placement", nargs="*", default=["fused"], choices=["fused", "split"])
    parser.add_argument("--photos", type=Path, help="folder of JPEGs; default: generated ones")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if "split" in options.placement and min(options.gpus) < 2:
        parser.error("split placement needs 2 GPUs: one to detect, one to segment")
    head = machine(1)
    with tempfile.TemporaryDirectory() as folder:
        maker = multiprocessing.get_context("spawn").Process(
            target=make_shards, args=(folder, options.photos, options.images)
        )
        maker.start()
        maker.join()
        assert maker.exitcode == 0
        images = Storage(str(Path(folder) / "shards"))
        shards = read_shard_set(images)
        mean = sum(unit.rows for unit in shards.units)
        print(f"{head}\n{mean:,} images of {shards.size / mean / 1000:.0f} KB in {len(shards.units):,} units")
        start_ray(gpus=max(options.gpus))
        print(f"driver: {resident_mb():.0f} MB with Ray connected", flush=True)
        rows = []
        for placement in options.placement:
            for gpus in options.gpus:
                units = options.units_per_gpu * gpus if options.units_per_gpu else len(shards.units)
                rows.append(simulate(placement, gpus, shards, images, units=units))
        ray.shutdown()
    for row in rows:
        single = next((other for other in rows if other["placement"] == row["placement"] and other["GPUs"] == 1), None)
        row["scaling"] = None if single is None else row["images/s"] / row["GPUs"] / single["images/s"]
    print_table(rows, FORMATS)
    write_json(options.json, rows, machine=head)


if __name__ == "__main__":
    main()
