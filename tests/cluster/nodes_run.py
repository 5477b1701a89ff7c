"""Run by test_nodes.py in a process of its own: the engine over two nodes with fake GPUs, one of which is killed.

Argument: a folder. Writes told.json into it: what was killed when, and all rows; log.nodes says where they were made.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
import time
from pathlib import Path

import psutil
import pyarrow as pa
import ray
import ray.cloudpickle
from cluster import nodes_run
from engine import stages
from engine.stages import JsonSink, LengthStage
from ray._private.node import Node
from ray.cluster_utils import Cluster

from wsss_ray.cluster import WORKER_ENVIRONMENT, Resources, model_pool
from wsss_ray.config import RayConfig
from wsss_ray.data.shards import IMAGE_SCHEMA, encode_image_shard, read_shard_set, shard_name
from wsss_ray.data.storage import Storage
from wsss_ray.engine import Meter, Progress, StageSpec, Task, run_units, units_to_do

UNITS, PER_UNIT = 40, 4
GPUS_PER_NODE = 2


class NodeStage(LengthStage):
    """LengthStage that also notes on which node an image was, and that it held a GPU."""

    def __call__(self, rows: pa.Table, meter: Meter) -> pa.Table:
        assert ray.get_gpu_ids(), "no GPU was given to this actor"
        node = ray.get_runtime_context().get_node_id()
        for image_id in rows["image_id"].to_pylist():
            stages.note(f"{self._log}.nodes", f"{node} {image_id}")
        return super().__call__(rows, meter)


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


def kill_one(cluster: Cluster, node: Node, output: Path, told: dict[str, object]) -> None:
    """SIGKILL to a node's raylet, and so to its workers, when a quarter of the units is done."""
    while len(list(output.glob("labels/*"))) < UNITS // 4:
        time.sleep(0.02)
    told["done_before"] = len(list(output.glob("labels/*")))
    told["killed"] = node.node_id
    cluster.remove_node(node, allow_graceful=False)


def main() -> None:
    folder = Path(sys.argv[1])
    write_shards(folder / "in")
    shards, output = read_shard_set(Storage(str(folder / "in"))), Storage(str(folder / "out"))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1, num_gpus=GPUS_PER_NODE) for _ in range(2)]
    ray.init(address=cluster.address, runtime_env={"env_vars": WORKER_ENVIRONMENT})
    cluster.wait_for_nodes()
    total = ray.cluster_resources()
    resources = Resources(cpus=total["CPU"], gpus=total["GPU"], nodes=len(ray.nodes()))
    spec = StageSpec(
        name="label",
        make=functools.partial(NodeStage, str(folder / "log"), 0.05),
        pool=model_pool(RayConfig(cpus_per_actor=0.2), resources),
    )
    told: dict[str, object] = {"actors": spec.pool.actors}
    killer = threading.Thread(target=kill_one, args=(cluster, nodes[1], folder / "out", told))
    killer.start()
    outcome = run_units(
        [Task(unit=unit) for unit in units_to_do(shards, output, limit=None)[1]],
        images=Storage(str(folder / "in")),
        stages=[spec],
        sink=JsonSink(output),
        progress=Progress(total=shards.rows, done=0, every_seconds=5),
    )
    killer.join()
    told |= {"images": outcome.images, "problems": outcome.problems}
    told["rows"] = [row for unit in shards.units for row in json.loads(output.read(unit.label_path))]
    Path(folder / "told.json").write_text(json.dumps(told))
    for process in psutil.Process().children(recursive=True):  # quicker than an orderly end, which nobody tests here
        process.kill()
    os._exit(0)


if __name__ == "__main__":
    ray.cloudpickle.register_pickle_by_value(stages)  # the actors have no path to this folder
    ray.cloudpickle.register_pickle_by_value(nodes_run)
    nodes_run.main()
