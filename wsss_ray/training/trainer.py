"""Ray Train as this job uses it: its workers, and who stands up again after a death."""

from __future__ import annotations

import functools
import os
import sys
import uuid
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
import torch.distributed as dist
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.backend import BackendConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.torch.config import _set_torch_distributed_env_vars, _TorchBackend

from wsss_ray.training.plan import Layout
from wsss_ray.training.worker import Assignment, train_worker


def make_trainer(assignment: Assignment, layout: Layout, *, scratch: str) -> TorchTrainer:
    """A trainer of the assignment. Ray must be connected.

    Args:
        assignment: what every worker does.
        layout: how many workers there are, and what each holds.
        scratch: folder of this machine for Ray Train's own notes; checkpoints are ours, in the run directory.
    """
    pool = layout.workers
    is_loopback = ray.util.get_node_ip_address().startswith("127.")
    environment: dict[str, str] = {}
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths mean the same in workers as here
    if is_loopback:
        interface = "lo0" if sys.platform == "darwin" else "lo"
        environment |= {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": f"={interface}"}
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    kind = _LoopbackTrainer if is_loopback else TorchTrainer
    return kind(
        functools.partial(train_worker, assignment),
        torch_config=_LoopbackConfig(folder=scratch) if is_loopback else TorchConfig(),
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
    """On a Ray of this machine alone, which ends with the job and has no dashboard.

    Ray Train's cleaner of placement groups survives the job to tidy up after it, and asks the dashboard whether it
    lives, with a warning each second if there is none.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()  # type: ignore[misc] # as above
        return [callback for callback in callbacks if type(callback).__name__ != "PlacementGroupCleanerCallback"]


@dataclass
class _LoopbackConfig(TorchConfig):
    """Workers of one machine, which find each other through a file.

    The store of Ray Train's own ways to begin listens on every interface, and asks nobody who they are.
    """

    folder: str = ""
    """Where the files lie: on this machine, readable by this user alone."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _LoopbackBackend


class _LoopbackBackend(_TorchBackend):
    """Begins the group of `_LoopbackConfig`'s workers."""

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        assert isinstance(backend_config, _LoopbackConfig)
        worker_group.execute(_set_torch_distributed_env_vars)
        group = {
            # A name of its own: in the file of a group that died, the next would find the addresses of the dead.
            "path": str(Path(backend_config.folder) / f"group-{uuid.uuid4().hex}"),
            "backend": "nccl" if worker_group.get_resources_per_worker().get("GPU", 0) > 0 else "gloo",
            "workers": len(worker_group),
            "timeout": timedelta(seconds=backend_config.timeout_s),
        }
        ray.get([worker_group.execute_single_async(n, _join, world_rank=n, **group) for n in range(len(worker_group))])


def _join(*, path: str, backend: str, world_rank: int, workers: int, timeout: timedelta) -> None:
    store = dist.FileStore(path, workers)
    store.set_timeout(timeout)
    dist.init_process_group(backend, store=store, rank=world_rank, world_size=workers, timeout=timeout)
