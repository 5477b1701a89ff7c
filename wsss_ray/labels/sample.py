"""The dry run's sample: a few images timed with the real models."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import pyarrow as pa
import ray
from ray.exceptions import RayError

from wsss_ray.engine.meter import Meter
from wsss_ray.engine.progress import format_seconds
from wsss_ray.engine.ray_data import explain
from wsss_ray.engine.stage import StageSpec
from wsss_ray.engine.task import Task
from wsss_ray.errors import JobError
from wsss_ray.shards.image_shards import read_unit
from wsss_ray.shards.schemas import READ_COLUMNS
from wsss_ray.storage.storage import Storage

IMAGES_TIMED = 4


def describe_sample(
    tasks: Sequence[Task],
    stages: Sequence[StageSpec],
    images: Storage,
    *,
    asked: Callable[[pa.Table], list[str]],
    with_work: Callable[[pa.Table], pa.Table],
    expected: Callable[[str], float | None],
) -> list[str]:
    """What the models will be asked, and how long the run will take by the time of four images. Labels nothing.

    Args:
        tasks: what is to be done, at least one; images of the first are looked at.
        stages: of the run.
        images: folder of the image shards.
        asked: lines about image rows (the first ones are the sample's).
        with_work: the image rows that a model looks at.
        expected: seconds that an image should take all stages together, on a GPU of this name; None where unknown.

    Raises:
        JobError: a stage fails on the sample.
    """
    rows = read_unit(images, tasks[0].unit, columns=READ_COLUMNS)
    lines = asked(rows)
    sample = with_work(rows).slice(0, IMAGES_TIMED)
    if sample.num_rows == 0:
        return [*lines, "estimate  none: no image of the first unit has a tag, so no model runs"]
    sample = sample.append_column("error", pa.nulls(sample.num_rows, pa.string()))
    slowest, whole, device = 0.0, 0.0, ""
    for spec in stages:
        timed = ray.remote(_time_stage).options(num_cpus=spec.pool.cpus, num_gpus=spec.pool.gpus)
        try:
            sample, seconds, loading, device = ray.get(timed.remote(spec, sample))
        except RayError as error:
            raise JobError(f"{spec.name} failed on the sample: {explain(error)}") from error
        per_image = seconds / sample.num_rows
        whole += per_image
        slowest = max(slowest, per_image / spec.pool.actors)
        timing = f"{per_image:.3f} s per image and actor, warm, {sample.num_rows} images"
        lines.append(f"timed     {spec.name}: {timing}; models loaded in {loading:.1f} s")
    if (should := expected(device)) is not None:
        lines.append(
            f"expected  {1 / should:.1f} images/s and {device}, by arithmetic and memory at the share of the peak that "
            f"was published; the sample reaches {should / whole:.0%} of it"
        )
    to_do = sum(task.images for task in tasks)
    estimate = format_seconds(to_do * slowest)
    return [*lines, f"estimate  {estimate} for {to_do:,} images, loading and the last units' tail apart"]


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
