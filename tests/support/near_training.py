"""Run trainings without the processes of Ray Train, for tests of the other parts."""

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
    """A trainer with one worker in this process, in place of Ray Train's."""

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
    """Let this process be the only worker of trainings; their feed does not change."""
    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    monkeypatch.setattr(ray.train, "get_context", lambda: context)
    monkeypatch.setattr(worker, "get_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(
        session, "make_trainer", lambda assignment, _layout, scratch: InThisProcess(assignment, scratch)
    )
