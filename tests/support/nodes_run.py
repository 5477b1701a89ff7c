"""Run the engine on nodes with fake GPUs; one node is added and one is lost. Part of lost_nodes.py."""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import engine_stages as stages
import pyarrow as pa
import ray
from engine_stages import JsonSink, LengthStage
from ray._private.node import Node
from ray.cluster_utils import Cluster

from wsss_ray.config import RayConfig
from wsss_ray.engine.meter import Meter
from wsss_ray.engine.progress import Progress
from wsss_ray.engine.resources import Node as Place
from wsss_ray.engine.resources import Resources, model_pool
from wsss_ray.engine.run import run_units
from wsss_ray.engine.run_directory import units_to_do
from wsss_ray.engine.stage import StageSpec
from wsss_ray.engine.task import UnitTask
from wsss_ray.shards.image_encoding import encode_image_shard, shard_name
from wsss_ray.shards.image_shards import read_shard_set
from wsss_ray.shards.schemas import IMAGE_SCHEMA
from wsss_ray.storage.storage import Storage

UNITS, PER_UNIT = 40, 4
GPUS_PER_NODE = 1


class NodeStage(LengthStage):
    """LengthStage that also records the node of each image and checks for a GPU; slow until two nodes work."""

    def __call__(self, rows: pa.Table, meter: Meter) -> pa.Table:
        assert ray.get_gpu_ids(), "no GPU was given to this actor"
        node = ray.get_runtime_context().get_node_id()
        for image_id in rows["image_id"].to_pylist():
            stages.note(f"{self._log}.nodes", f"{node} {image_id}")
            time.sleep(0.05 if len(nodes_at_work(Path(f"{self._log}.nodes"))) > 1 else 0.5)
        return super().__call__(rows, meter)


def nodes_at_work(log: Path) -> set[str]:
    """Return the nodes that have recorded an image."""
    return {line.split()[0] for line in log.read_text().splitlines()} if log.exists() else set()


def write_shards(folder: Path) -> None:
    groups = [
        pa.table(
            {
                "image_id": [f"{unit}-{i}" for i in range(PER_UNIT)],
                "source": [""] * PER_UNIT,
                "image": pa.array([bytes(unit + i) for i in range(PER_UNIT)], pa.large_binary()),
                "height": pa.array([1] * PER_UNIT, pa.int32()),
                "width": pa.array([1] * PER_UNIT, pa.int32()),
                "tags": pa.array([[]] * PER_UNIT, pa.list_(pa.string())),
                "truth": pa.nulls(PER_UNIT, pa.large_binary()),
            },
            schema=IMAGE_SCHEMA,
        )
        for unit in range(UNITS)
    ]
    data = encode_image_shard(groups, exif="ignore", label_space="space", classes="test")
    Storage(str(folder)).write(shard_name(0, 1), data)


def run(folder: Path, spec: StageSpec, told: dict[str, object]) -> None:
    """Run all units through the stage."""
    shards, output = read_shard_set(Storage(str(folder / "in"))), Storage(str(folder / "out"))
    outcome = run_units(
        [UnitTask(unit=unit) for unit in units_to_do(shards, output, limit=None)[1]],
        images=Storage(str(folder / "in")),
        stages=[spec],
        sink=JsonSink(output),
        progress=Progress(total=shards.rows, done=0, every_seconds=5),
    )
    told |= {"images": outcome.images, "problems": outcome.problems}
    told["rows"] = [row for unit in shards.units for row in json.loads(output.read(unit.label_path))]


def run_with_a_lost_node(folder: Path, cluster: Cluster, first: Node) -> tuple[dict[str, object], Node]:
    """Run units on a cluster in which only `first` has GPUs; a second such node is added, then `first` is killed.

    Returns:
        What was killed when, and all rows; log.nodes says where they were made. And the node that came.
    """
    write_shards(folder / "in")
    config = RayConfig(actors=2 * GPUS_PER_NODE, gpus_per_actor=1, cpus_per_actor=0.2, wait_for_nodes=True)
    pool = model_pool(config, Resources(nodes=(Place(cpus=2, gpus=0), Place(cpus=2, gpus=GPUS_PER_NODE))))
    spec = StageSpec(name="label", make=functools.partial(NodeStage, str(folder / "log")), pool=pool)
    told: dict[str, object] = {"actors": pool.actors}
    work = threading.Thread(target=run, args=(folder, spec, told))
    work.start()

    def done() -> int:
        return len(list(folder.glob("out/labels/*")))

    def wait(ready: Callable[[], bool]) -> int:
        while work.is_alive() and not ready():
            time.sleep(0.05)
        return done()

    told["done_before_join"] = wait(lambda: done() > 0)  # with half of its actors: nobody waits for the others
    second = cluster.add_node(num_cpus=2, num_gpus=GPUS_PER_NODE)
    told["second"] = second.node_id
    wait(lambda: second.node_id in nodes_at_work(folder / "log.nodes"))
    told["done_before_kill"] = wait(lambda: done() >= UNITS // 4)
    told["killed"] = first.node_id
    cluster.remove_node(first, allow_graceful=False)  # SIGKILL to the raylet, and so to its workers
    work.join()
    return told, second
