"""Form the group of the workers: over NCCL or Gloo, and on one machine so that no other machine can reach it.

Ray Train's controller imports this module. It imports little, because training waits for the controller's start.
"""

from __future__ import annotations

import dataclasses
import uuid
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
import torch
import torch.distributed as dist
from ray.train.backend import BackendConfig
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _TorchBackend


@dataclass
class GroupConfig(TorchConfig):
    """Configuration of workers that form a group even where CUDA does not start, and can then report that."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _Backend


class _Backend(_TorchBackend):
    """Starts the group of `GroupConfig`'s workers."""

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        assert isinstance(backend_config, GroupConfig)
        super().on_start(worker_group, dataclasses.replace(backend_config, backend=backend_of(worker_group)))


def backend_of(worker_group: Any) -> str:
    """Return nccl where CUDA starts on the GPUs of all workers, else gloo.

    NCCL would raise where there is no CUDA, and Ray Train would start the group again and again. Over Gloo the workers
    come to the check of their device, which says what is wrong and ends the training.
    """
    if worker_group.get_resources_per_worker().get("GPU", 0) <= 0:
        return "gloo"
    return "nccl" if all(worker_group.execute(torch.cuda.is_available)) else "gloo"


@dataclass
class LoopbackConfig(TorchConfig):
    """Configuration of workers of one machine that meet through a file.

    Ray Train's own methods open a store that listens on every interface without authentication.
    """

    folder: str = ""
    """Folder of the files: on this machine, readable only by this user."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _LoopbackBackend


class _LoopbackBackend(_TorchBackend):
    """Starts the group of `LoopbackConfig`'s workers."""

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        assert isinstance(backend_config, LoopbackConfig)
        worker_group.execute(_set_torch_distributed_env_vars)
        group = {
            # A new name: the file of a group that died holds the addresses of its workers.
            "path": str(Path(backend_config.folder) / f"group-{uuid.uuid4().hex}"),
            "backend": backend_of(worker_group),
            "workers": len(worker_group),
            "timeout": timedelta(seconds=backend_config.timeout_s),
        }
        ray.get([worker_group.execute_single_async(n, _join, world_rank=n, **group) for n in range(len(worker_group))])


def _join(*, path: str, backend: str, world_rank: int, workers: int, timeout: timedelta) -> None:
    store = dist.FileStore(path, workers)  # type: ignore[attr-defined]  # public, but not in torch's __all__
    store.set_timeout(timeout)
    dist.init_process_group(backend, store=store, rank=world_rank, world_size=workers, timeout=timeout)
