"""Ray Train's trainer for this job: its workers, and their restarts."""

from __future__ import annotations

import functools
import os
import sys
import uuid
from typing import Any

import ray
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from wsss_ray.training.loopback import GroupConfig, LoopbackConfig
from wsss_ray.training.plan import Allocation
from wsss_ray.training.worker import Assignment, train_worker


def make_trainer(assignment: Assignment, allocation: Allocation, *, scratch: str) -> TorchTrainer:
    """Return a trainer of the assignment. Ray must be connected.

    Args:
        assignment: the work of every worker.
        allocation: number of workers, and the resources of each.
        scratch: local folder for Ray Train's own files; our checkpoints are in the run directory.
    """
    pool = allocation.workers
    is_loopback = ray.util.get_node_ip_address().startswith("127.")
    environment: dict[str, str] = {}
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths have the same meaning in workers
    if is_loopback:
        interface = "lo0" if sys.platform == "darwin" else "lo"
        environment |= {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": f"={interface}"}
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    kind = _LoopbackTrainer if is_loopback else TorchTrainer
    return kind(
        functools.partial(train_worker, assignment),
        torch_config=LoopbackConfig(folder=scratch) if is_loopback else GroupConfig(),
        scaling_config=ScalingConfig(
            num_workers=pool.actors,
            use_gpu=pool.gpus > 0,
            resources_per_worker={"CPU": pool.cpus, **({"GPU": pool.gpus} if pool.gpus else {})},
        ),
        run_config=RunConfig(  # type: ignore[call-arg] # its stubs are those of the first version
            name=f"train-{uuid.uuid4().hex[:8]}",
            storage_path=scratch,
            failure_config=FailureConfig(max_failures=assignment.config.worker_failures),
            logging_config=LoggingConfig(log_level="ERROR"),
            worker_runtime_env={"env_vars": environment},
        ),
    )


class _LoopbackTrainer(TorchTrainer):
    """A trainer for a local Ray, which ends with the job and has no dashboard.

    Ray Train's cleaner of placement groups outlives the job, and logs a warning each second if there is no dashboard.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()  # type: ignore[misc] # as above
        return [callback for callback in callbacks if type(callback).__name__ != "PlacementGroupCleanerCallback"]
