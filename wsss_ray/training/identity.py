"""The identity of a training run: the settings that a rerun must share. Needs no Ray and no PyTorch."""

from __future__ import annotations

import dataclasses
from typing import Any

from wsss_ray.classes import ClassSet
from wsss_ray.config.train import TrainConfig
from wsss_ray.shards.image_shards import ShardSet
from wsss_ray.training.initial_weights import student_weights_digest
from wsss_ray.training.sources import Survey

ALGORITHM_VERSION = 1
"""Incremented when a change of the code changes the trained network on purpose."""


def identity(
    config: TrainConfig,
    classes: ClassSet,
    shards: ShardSet,
    found: Survey,
    *,
    validation: ShardSet | None,
) -> dict[str, Any]:
    """Return all settings that change the trained network or its validation, as JSON values.

    The number of workers, micro-batches, compile, memory order, checkpoints and paths change neither.

    Args:
        config: the training, with its device and precision decided.
        classes: its class set.
        shards: its image shards.
        found: its labels.
        validation: the image shards to validate on.
    """
    recipe = dataclasses.asdict(config.recipe)
    recipe.pop("accumulation")
    student = dataclasses.asdict(config.student)
    for name in ("weights", "sha256"):
        student.pop(name)
    student["weights"] = student_weights_digest(config.student, config.storage)
    return {
        "kind": "training",
        "algorithm": ALGORITHM_VERSION,
        "classes": {"name": classes.name, "label_space": classes.label_space_digest},
        "shards": shards.digest,
        "labels": {"digest": found.digest, "unusable": config.unusable},
        **recipe,
        "power": config.power,
        "momentum": config.momentum,
        "weight_decay": config.weight_decay,
        "random_scales": list(config.recipe.random_scales),
        "flip": config.flip,
        "shuffle_window": config.shuffle_window,
        "seed": config.seed,
        "student": {**student, "scales": list(config.student.resolved_scales)},
        "device": config.device,
        "precision": config.precision,
        "validation": None
        if validation is None
        else {"shards": validation.digest, "every": config.validation_every, "limit": config.validation_limit},
    }
