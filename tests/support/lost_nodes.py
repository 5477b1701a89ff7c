"""Jobs on several nodes, one of which is lost during each job. test_nodes.py runs this in its own process.

Argument: a folder. Where it has a `set` of images and labels, a training on them follows. Writes told.json, by job.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import engine_stages as stages
import nodes_run
import ray
import ray.cloudpickle
from nodes_run import GPUS_PER_NODE, run_with_a_lost_node
from nodes_train import train_with_a_lost_node
from processes import end_at_once
from ray.cluster_utils import Cluster

from wsss_ray.engine.own_ray import WORKER_ENVIRONMENT


def main() -> None:
    folder = Path(sys.argv[1])
    for module in (stages, nodes_run):  # the actors have no path to this folder
        ray.cloudpickle.register_pickle_by_value(module)
    os.environ.update(WORKER_ENVIRONMENT)  # the nodes and their workers inherit it
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 0, "include_dashboard": False})
    first = cluster.add_node(num_cpus=2, num_gpus=GPUS_PER_NODE)
    ray.init(address=cluster.address)
    told = {}
    told["units"], second = run_with_a_lost_node(folder, cluster, first)
    if (folder / "set").exists():
        told["training"] = train_with_a_lost_node(folder / "set", cluster, second)
    (folder / "told.json").write_text(json.dumps(told))
    end_at_once()


if __name__ == "__main__":
    main()
