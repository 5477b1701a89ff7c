"""The dry run's sample: a few images timed with the real models."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import ray
from ray.exceptions import RayError

from wsss_ray.engine.meter import Meter
from wsss_ray.engine.progress import format_seconds
from wsss_ray.engine.ray_data import explain
from wsss_ray.engine.stage import StageSpec
from wsss_ray.engine.task import UnitTask
from wsss_ray.errors import JobError
from wsss_ray.shards.image_shards import read_unit
from wsss_ray.shards.schemas import READ_COLUMNS
from wsss_ray.storage.storage import Storage

IMAGES_TIMED = 4


def describe_sample(
    tasks: Sequence[UnitTask],
    stages: Sequence[StageSpec],
    images: Storage,
    *,
    describe_rows: Callable[[pa.Table], list[str]],
    with_work: Callable[[pa.Table], pa.Table],
    expected: Callable[[str], float | None],
) -> list[str]:
    """Return the prompts and the estimated hours of a run, timed on four images. Nothing is labelled.

    Args:
        tasks: the units to do, at least one; the sample is taken from the first.
        stages: of the run.
        images: folder of the image shards.
        describe_rows: returns lines about image rows (the first ones are the sample's).
        with_work: returns the image rows that a model processes.
        expected: seconds that an image should take all stages together, on a GPU of this name; None where unknown.

    Raises:
        JobError: a stage fails on the sample.
    """
    rows = read_unit(images, tasks[0].unit, columns=READ_COLUMNS)
    lines = describe_rows(rows)
    sample = with_work(rows).slice(0, IMAGES_TIMED)
    if sample.num_rows == 0:
        return [*lines, "estimate  none: no image of the first unit has a tag, so no model runs"]
    timings = time_stages(stages, sample)
    for timing in timings:
        per_image = f"{timing.seconds:.3f} s per image and actor, warm, {sample.num_rows} images"
        lines.append(f"timed     {timing.stage}: {per_image}; models loaded in {timing.loading:.1f} s")
    whole, device = sum(timing.seconds for timing in timings), timings[-1].device
    if (should := expected(device)) is not None:
        lines.append(
            f"expected  {1 / should:.1f} images/s and {device}, by the counted operators at assumed shares of the "
            f"data sheet (not measured); the sample reaches {should / whole:.0%} of it"
        )
    sizes = [task.images for task in tasks]
    return [*lines, f"estimate  {format_seconds(estimate(timings, sizes))} for {sum(sizes):,} images, without loading"]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Time that a stage takes for one image."""

    stage: str
    actors: int
    """Actors of its pool."""
    seconds: float
    """For one image in one actor, once it is warm."""
    loading: float
    """For its models, in seconds."""
    device: str
    """Name of the GPU; empty without one."""
    row_bytes: float
    """Size of a row that the stage returns."""


def time_stages(stages: Sequence[StageSpec], rows: pa.Table) -> list[Timing]:
    """Run the stages on a few image rows, each in a process of its pool's size, and return their times.

    Raises:
        JobError: a stage fails on the rows.
    """
    rows = rows.append_column("error", pa.nulls(rows.num_rows, pa.string()))
    timings = []
    for spec in stages:
        timed = ray.remote(_time_stage).options(num_cpus=spec.pool.cpus, num_gpus=spec.pool.gpus)
        try:
            rows, seconds, loading, device = ray.get(timed.remote(spec, rows))
        except RayError as error:
            raise JobError(f"{spec.name} failed on the sample: {explain(error)}") from error
        timings.append(
            Timing(
                stage=spec.name,
                actors=spec.pool.actors,
                seconds=seconds / rows.num_rows,
                loading=loading,
                device=device,
                row_bytes=rows.nbytes / rows.num_rows,
            )
        )
    return timings


def estimate(timings: Sequence[Timing], sizes: Sequence[int]) -> float:
    """Return the seconds of a run: the slowest stage's, for the images of its busiest actor.

    Args:
        timings: of all stages.
        sizes: images of each unit. A unit is not divided among actors.
    """
    return max(timing.seconds * busiest(sizes, timing.actors) for timing in timings)


def busiest(sizes: Sequence[int], actors: int) -> int:
    """Return the images of the actor that has most, where each takes the next unit when it is free."""
    loads = [0] * actors
    for size in sizes:
        heapq.heapreplace(loads, loads[0] + size)
    return max(loads)


def _time_stage(spec: StageSpec, rows: pa.Table) -> tuple[pa.Table, float, float, str]:
    """Run a stage on the rows twice in a process of its pool's size.

    Returns:
        Its result, the seconds of the second run, those of loading, and the GPU's name ("" without one).
    """
    start = time.perf_counter()
    stage = spec.make()
    loaded = time.perf_counter()
    stage(rows, Meter())
    warm = time.perf_counter()
    result = stage(rows, Meter())
    seconds = time.perf_counter() - warm
    import torch  # noqa: PLC0415 - seconds that the driver does not need

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return result, seconds, loaded - start, device
