"""Shards of plain bytes, and runs of the engine over them."""

from __future__ import annotations

import functools
import itertools
import json
from pathlib import Path

import engine_stages as stages
import pyarrow as pa
import ray.cloudpickle
from engine_stages import JsonSink, LengthStage

from wsss_ray.engine.progress import Progress
from wsss_ray.engine.resources import Pool
from wsss_ray.engine.run import run_units
from wsss_ray.engine.run_directory import units_to_do
from wsss_ray.engine.stage import StageSpec
from wsss_ray.engine.task import RunOutcome, UnitTask
from wsss_ray.shards.image_encoding import encode_image_shard, shard_name
from wsss_ray.shards.image_shards import ShardSet, read_shard_set
from wsss_ray.shards.schemas import IMAGE_SCHEMA
from wsss_ray.storage.storage import Storage

ray.cloudpickle.register_pickle_by_value(stages)  # the actors have no path to this folder
POOL = Pool(actors=1, cpus=0.4, gpus=0)


def write_shards(folder: Path, shards: list[list[list[bytes]]]) -> ShardSet:
    """Shards of row groups of the given bytes; ids are the unit, counted over all shards, and the position in it."""
    storage = Storage(str(folder))
    number = itertools.count()
    for index, units in enumerate(shards):
        groups = [group_of(next(number), images) for images in units]
        data = encode_image_shard(groups, exif="ignore", label_space="space", classes="test")
        storage.write(shard_name(index, len(shards)), data)
    return read_shard_set(storage)


def group_of(unit: int, images: list[bytes]) -> pa.Table:
    return pa.table(
        {
            "image_id": [f"{unit}-{i}" for i in range(len(images))],
            "source": [""] * len(images),
            "image": pa.array(images, pa.large_binary()),
            "height": pa.array([1] * len(images), pa.int32()),
            "width": pa.array([1] * len(images), pa.int32()),
            "tags": pa.array([[]] * len(images), pa.list_(pa.string())),
            "truth": pa.nulls(len(images), pa.large_binary()),
        },
        schema=IMAGE_SCHEMA,
    )


def spec(*, log: Path | None = None, seconds: float = 0.0, name: str = "length") -> StageSpec:
    make = functools.partial(LengthStage, str(log) if log else None, seconds)
    return StageSpec(name=name, make=make, pool=POOL)


def run(folder: Path, shards: ShardSet, steps: list[StageSpec], progress: Progress | None = None) -> RunOutcome:
    output = Storage(str(folder / "out"))
    _, missing = units_to_do(shards, output, limit=None)
    return run_units(
        [UnitTask(unit=unit) for unit in missing],
        images=Storage(str(folder / "in")),
        stages=steps,
        sink=JsonSink(output),
        progress=progress or Progress(total=shards.rows, done=0, every_seconds=60),
    )


def rows_of(folder: Path, shards: ShardSet) -> list[dict[str, object]]:
    return [row for unit in shards.units for row in json.loads((folder / "out" / unit.label_path).read_text())]
