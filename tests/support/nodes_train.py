"""Train on two nodes, of which one is lost and replaced. Part of lost_nodes.py."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from processes import training_workers
from ray._private.node import Node
from ray.cluster_utils import Cluster
from training_cases import configure

from wsss_ray.config import RayConfig
from wsss_ray.config.train import TrainConfig
from wsss_ray.storage.storage import Storage
from wsss_ray.training.checkpoint_files import list_checkpoints
from wsss_ray.training.job import run

ITERATIONS = 16


def config_of(folder: Path) -> TrainConfig:
    """Return a training by two workers; a node of two cores holds one, and then has no whole core left."""
    return configure(
        folder,
        folder / "trained",
        iterations=ITERATIONS,
        learning_rate=1e-3,
        checkpoint_every=2,
        ray=RayConfig(actors=2, cpus_per_actor=1.1, gpus_per_actor=0),
    )


def workers_of(node: Node) -> list[int]:
    """Return the process ids of the training workers on a node."""
    return training_workers(node.all_processes["raylet"][0].process.pid)


def train_with_a_lost_node(folder: Path, cluster: Cluster, lost: Node) -> dict[str, object]:
    """Train on the cluster's head and one more node, which is lost and replaced.

    Args:
        folder: holds images and labels.
        cluster: its nodes have two cores each.
        lost: the node.

    Returns:
        Which workers were where, and the training's summary.
    """
    config, output = config_of(folder), Storage(str(folder / "trained"))
    told: dict[str, object] = {}
    work = threading.Thread(target=lambda: told.update(summary=run(config)))
    work.start()

    def wait(ready: Callable[[], object]) -> None:
        while work.is_alive() and not ready():
            time.sleep(0.02)

    wait(lambda: list_checkpoints(output))
    head = cluster.head_node
    before = [workers_of(node) for node in (head, lost)]
    cluster.remove_node(lost, allow_graceful=False)  # SIGKILL to the raylet, and so to its workers
    told["checkpoint_at_kill"] = list_checkpoints(output)[-1]
    added = cluster.add_node(num_cpus=2)

    def after() -> list[list[int]]:
        return [[pid for pid in workers_of(node) if pid not in before[0]] for node in (head, added)]

    wait(lambda: all(after()))
    told |= {"before": before, "after": after()}
    work.join()
    return told
