"""Trainings without the processes of Ray Train, for tests of what is around them."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import ray.train
import torch
import torch.distributed as dist

from wsss_ray.training import session, worker
from wsss_ray.training.worker import Assignment, train_worker


@dataclass(frozen=True)
class InThisProcess:
    """Ray Train's trainer with one worker, which needs no process of its own."""

    assignment: Assignment
    scratch: str

    def fit(self) -> None:
        """Train."""
        dist.init_process_group("gloo", store=dist.FileStore(f"{self.scratch}/group", 1), rank=0, world_size=1)
        try:
            train_worker(self.assignment)
        finally:
            dist.destroy_process_group()


def train_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a training's one worker is this process; its feed is as ever."""
    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    monkeypatch.setattr(ray.train, "get_context", lambda: context)
    monkeypatch.setattr(worker, "get_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(
        session, "make_trainer", lambda assignment, _layout, scratch: InThisProcess(assignment, scratch)
    )
