"""The group of the workers where CUDA does not start: it forms, and the reason is reported once."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import ray.train
from ray.train.torch.config import _TorchBackend

from wsss_ray.models.cuda import GpuError
from wsss_ray.training import worker
from wsss_ray.training.loopback import GroupConfig, backend_of
from wsss_ray.training.monitor import TrainingState
from wsss_ray.training.worker import train_worker


class Workers:
    """Workers with GPUs, of which CUDA starts on some."""

    def __init__(self, gpus: float, starts: list[bool]) -> None:
        self.gpus = gpus
        self.starts = starts

    def get_resources_per_worker(self) -> dict[str, float]:
        return {"CPU": 1, "GPU": self.gpus} if self.gpus else {"CPU": 1}

    def execute(self, ask: Callable[[], bool]) -> list[bool]:
        assert ask.__name__ == "is_available"
        return self.starts


@pytest.mark.parametrize(
    ("workers", "backend"),
    [
        (Workers(0, [False, False]), "gloo"),
        (Workers(1, [True, True]), "nccl"),
        (Workers(1, [True, False]), "gloo"),
        (Workers(1, [False]), "gloo"),
    ],
)
def test_workers_meet_over_gloo_where_cuda_does_not_start_on_all(
    workers: Workers, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert backend_of(workers) == backend
    started: list[str | None] = []
    monkeypatch.setattr(_TorchBackend, "on_start", lambda _self, _group, config: started.append(config.backend))
    config = GroupConfig()
    config.backend_cls().on_start(workers, config)
    assert started == [backend]


class Remote:
    """A method of an actor that is called at once."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.remote = call


@pytest.mark.parametrize("workers", [1, 2])
def test_a_problem_is_reported_once_and_a_group_that_starts_again_returns(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, checks = TrainingState(), []

    def report(problem: str, *, certain: bool) -> None:
        assert certain
        state.problem = problem

    def check(_: object) -> None:
        checks.append(1)
        raise GpuError("CUDA does not start here")

    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: workers)
    monkeypatch.setattr(ray.train, "get_context", lambda: context)
    monkeypatch.setattr(ray, "get", lambda value: value)
    monkeypatch.setattr(worker, "_resolve_device", check)
    monitor = SimpleNamespace(
        state=Remote(lambda: state), report_problem=Remote(report), report_retries=Remote(lambda _: None)
    )
    assignment: Any = SimpleNamespace(config=None, monitor=monitor, threads=1)
    if workers == 1:
        train_worker(assignment)
    else:
        with pytest.raises(GpuError):  # ends the other workers, which wait for this one
            train_worker(assignment)
    assert state.problem == "CUDA does not start here"
    train_worker(assignment)
    assert checks == [1]
