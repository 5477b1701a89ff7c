"""The training job: labels in, a trained student out."""

from __future__ import annotations

from typing import Any

from wsss_ray.config.train import TrainConfig


def run(config: TrainConfig) -> dict[str, Any]:
    """Train a student: see `wsss_ray.training.job.run`."""
    from wsss_ray.training import job  # noqa: PLC0415 - the tasks that feed it need no PyTorch, and start sooner

    return job.run(config)


__all__ = ["run"]
