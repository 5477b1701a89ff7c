"""Measure the training job against a bare PyTorch loop on tensors in memory: the cost of the feed.

Both have the same network, crops, batch, threads and updates, and one process that computes; they run in turn. The bare
loop repeats finished batches; the job reads shards, decodes, augments and sends the samples to the worker. Speeds are
measured from a fifth of the updates to the last; start-up is separate. The feed computes beside the worker, so it needs
its own core (on a GPU, several).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import simplejpeg
import torch
from measuring import machine, write_json
from PIL import Image, ImageDraw
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from wsss_ray.classes import ClassSet
from wsss_ray.config import RayConfig, StudentConfig
from wsss_ray.config.train import TrainConfig
from wsss_ray.engine.cluster import connect
from wsss_ray.engine.resources import Resources
from wsss_ray.images.label_png import encode_label
from wsss_ray.models.device import resolve_compute
from wsss_ray.models.student.building import build_student
from wsss_ray.shards.image_encoding import encode_image_shard, shard_name
from wsss_ray.shards.schemas import IMAGE_SCHEMA
from wsss_ray.storage.storage import Storage
from wsss_ray.training.job import run
from wsss_ray.training.plan import allocate
from wsss_ray.training.updates import Updater

CLASSES = ClassSet.load("voc")
WIDTH, HEIGHT = 500, 375
IMAGES = 256
IMAGES_PER_UNIT = 32


@dataclass(frozen=True, kw_only=True)
class Case:
    """One student to train."""

    name: str
    architecture: str
    crop: int
    batch_size: int
    iterations: int


CASES = (
    Case(name="demo student", architecture="deeplabv2-tiny", crop=145, batch_size=4, iterations=300),
    Case(name="ResNet-18", architecture="deeplabv2-resnet18", crop=129, batch_size=4, iterations=80),
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Figures of one training."""

    rate: float
    """Updates per second from the first to the last."""
    start: float
    """Other seconds."""


def make_set(folder: Path) -> None:
    """Write image shards: random pictures with as many bytes as photos, ellipses as ground truth."""
    random = np.random.default_rng(0)
    rows = []
    for index in range(IMAGES):
        coarse = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(np.int16)
        picture += random.integers(-12, 13, picture.shape, dtype=np.int16)
        label = Image.new("L", (WIDTH, HEIGHT), CLASSES.background_id)
        for _ in range(random.integers(1, 5)):
            x, y, a, b = (int(value) for value in random.integers(30, 250, 4))
            fill = int(random.integers(1, CLASSES.num_classes))
            ImageDraw.Draw(label).ellipse((x, y, x + a, y + b), fill=fill, outline=CLASSES.ignore_id, width=5)
        rows.append(
            {
                "image_id": f"{index:06d}",
                "source": "",
                "image": simplejpeg.encode_jpeg(picture.clip(0, 255).astype(np.uint8), quality=90),
                "height": HEIGHT,
                "width": WIDTH,
                "tags": [],
                "truth": encode_label(np.asarray(label), palette=CLASSES.palette()),
            }
        )
    table = pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA)
    groups = [table.slice(first, IMAGES_PER_UNIT) for first in range(0, IMAGES, IMAGES_PER_UNIT)]
    data = encode_image_shard(groups, exif="ignore", label_space=CLASSES.label_space_digest, classes="voc")
    Storage(str(folder)).write(shard_name(0, 1), data)


def configure(case: Case, shards: Path, output: Path) -> TrainConfig:
    """Return the training that both loops do."""
    return TrainConfig(
        images=str(shards),
        output=str(output),
        label_column="truth",
        classes="voc",
        preset="demo",
        iterations=case.iterations,
        batch_size=case.batch_size,
        crop=case.crop,
        learning_rate=1e-4,
        checkpoint_every=10**6,
        status_seconds=1,
        student=StudentConfig(architecture=case.architecture, init="none"),
        ray=RayConfig(actors=1),
    )


def bare_loop(config: TrainConfig, threads: int) -> Measured:
    """Run only the updates, on batches in memory."""
    begin = time.monotonic()
    torch.set_num_threads(threads)
    recipe = config.recipe
    compute = resolve_compute(config.device, config.precision)
    student = build_student(config.student, CLASSES, weights=None).to(memory_format=torch.channels_last)
    updater = Updater.of(config, student.to(compute.device).train(), compute=compute, workers=1)
    random = np.random.default_rng(0)
    shape = (8, recipe.batch_size, recipe.crop, recipe.crop)
    images = random.integers(0, 256, (*shape, 3), dtype=np.uint8)
    labels = random.integers(0, CLASSES.num_classes, shape, dtype=np.int16)
    times = []
    for iteration in range(recipe.iterations):
        updater.update(iteration, images[iteration % 8], labels[iteration % 8]).sum().item()
        times.append(time.monotonic())
    return Measured(rate=steady_rate(times), start=times[0] - begin)


def steady_rate(times: Sequence[float]) -> float:
    """Return the updates per second after the first fifth, from the moments at which updates were done."""
    skipped = len(times) // 5
    return (len(times) - 1 - skipped) / (times[-1] - times[skipped])


def in_a_process(config: TrainConfig, threads: int) -> Measured:
    """Run the bare loop in a plain process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(bare_loop, (config, threads))


def by_ray(config: TrainConfig) -> Measured:
    """Run the job."""
    begin = time.time()
    run(config)
    ended = time.time()
    events = EventAccumulator(f"{config.output}/tensorboard", size_guidance={"scalars": 0}).Reload()
    times = [event.wall_time for event in events.Scalars("loss")]
    return Measured(rate=steady_rate(times), start=times[0] - begin + ended - times[-1])


def measure(case: Case, root: Path, resources: Resources, rounds: int) -> list[tuple[Measured, Measured]]:
    """Run the bare loop and Ray in turn."""
    found = []
    for number in range(rounds):
        config = configure(case, root / "shards", root / f"{case.architecture}-{number}")
        found.append((in_a_process(config, allocate(config, resources).threads), by_ray(config)))
    return found


def median(measured: Sequence[Measured], name: str) -> float:
    """Return the median of a figure over rounds."""
    return statistics.median(getattr(one, name) for one in measured)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds of bare loop and Ray; the table shows medians")
    parser.add_argument("--case", choices=[case.name for case in CASES], action="append", help="only these students")
    parser.add_argument("--iterations", type=int, help="updates of each training")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    head = machine(1)
    cases = [
        replace(case, iterations=options.iterations or case.iterations)
        for case in CASES
        if not options.case or case.name in options.case
    ]
    lines, rows = [], []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make_set(root / "shards")
        with connect(RayConfig()) as resources:
            for case in cases:
                found = measure(case, root, resources, options.rounds)
                bare, ray = [one for one, _ in found], [one for _, one in found]
                ratios = [one.rate / other.rate for one, other in zip(ray, bare, strict=True)]
                shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
                lines.append(
                    f"{case.name:14}{case.crop:5}{case.batch_size:7}{median(bare, 'rate'):14.2f}"
                    f"{median(ray, 'rate'):13.2f}{statistics.median(ratios):8.2f}  ({shown})"
                    f"{median(bare, 'start'):10.1f}{median(ray, 'start'):9.1f}"
                )
                print(lines[-1], flush=True)
                rows.append({"student": case.name, "ratios": ratios, "bare": [vars(one) for one in bare]})
                rows[-1]["ray"] = [vars(one) for one in ray]
    print(f"\n{head}\n{IMAGES} images of {WIDTH} x {HEIGHT}, {os.cpu_count()} cores, one computing process")
    print("student        crop  batch  bare updates/s  Ray updates/s  ratio  (rounds)  start-up s: bare, Ray")
    print("\n".join(lines))
    write_json(options.json, rows, machine=head)


if __name__ == "__main__":
    main()
