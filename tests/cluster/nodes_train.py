"""Run by test_nodes.py in a process of its own: a training on two nodes, of which one is lost and replaced.

Argument: a folder that holds images and labels. Writes told.json into it: which workers were where, and what came out.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import ray
from processes import end_at_once, training_workers
from ray._private.node import Node
from ray.cluster_utils import Cluster
from training_cases import configure

from wsss_ray.cluster import WORKER_ENVIRONMENT
from wsss_ray.config import RayConfig
from wsss_ray.config.training import TrainConfig
from wsss_ray.data.storage import Storage
from wsss_ray.training import run
from wsss_ray.training.checkpoint import list_checkpoints

ITERATIONS = 16


def config_of(folder: Path) -> TrainConfig:
    """Two workers, of which a node of two cores holds one, and then has no whole core left."""
    return configure(
        folder,
        folder / "trained",
        iterations=ITERATIONS,
        learning_rate=1e-3,
        checkpoint_every=2,
        ray=RayConfig(actors=2, cpus_per_actor=1.1),
    )


def workers_of(node: Node) -> list[int]:
    """Process ids of the training workers that a node runs."""
    return training_workers(node.all_processes["raylet"][0].process.pid)


def main() -> None:
    folder = Path(sys.argv[1])
    config, output = config_of(folder), Storage(str(folder / "trained"))
    os.environ.update(WORKER_ENVIRONMENT)  # its nodes and their workers inherit it
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    head, lost = cluster.head_node, cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address)
    told: dict[str, object] = {}
    work = threading.Thread(target=lambda: told.update(summary=run(config)))
    work.start()

    def wait(ready: Callable[[], object]) -> None:
        while work.is_alive() and not ready():
            time.sleep(0.02)

    wait(lambda: list_checkpoints(output))
    before = [workers_of(node) for node in (head, lost)]
    cluster.remove_node(lost, allow_graceful=False)  # SIGKILL to the raylet, and so to its workers
    told["checkpoint_at_kill"] = list_checkpoints(output)[-1]
    added = cluster.add_node(num_cpus=2)

    def after() -> list[list[int]]:
        return [[pid for pid in workers_of(node) if pid not in before[0]] for node in (head, added)]

    wait(lambda: all(after()))
    told |= {"before": before, "after": after()}
    work.join()
    Path(folder / "told.json").write_text(json.dumps(told))
    end_at_once()


if __name__ == "__main__":
    main()
