"""The training job."""

from __future__ import annotations

from typing import Any

from wsss_ray.config.train import TrainConfig


def run(config: TrainConfig) -> dict[str, Any]:
    """Train a student; see `wsss_ray.training.job.run`."""
    from wsss_ray.training import job  # noqa: PLC0415 - the tasks that feed the training import this package and start sooner

    return job.run(config)


__all__ = ["run"]
