"""What a training run is going to do: its identity, its resources, and the text that says so before it starts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import Any

from wsss_ray.classes import ClassSet
from wsss_ray.config.train import TrainConfig
from wsss_ray.engine.resources import READ_CPUS, Pool, Resources, check_pools, model_pool, uses_gpus
from wsss_ray.labels.precision import resolve
from wsss_ray.shards.image_shards import ShardSet
from wsss_ray.training.initial_weights import student_weights_digest
from wsss_ray.training.order import Order
from wsss_ray.training.sources import Survey

ALGORITHM_VERSION = 1
"""Counts changes of the code that change the trained network on purpose."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the work runs."""

    workers: Pool
    feed_cpus: float
    """Cores that an augmenting task reserves."""

    @property
    def threads(self) -> int:
        """Threads of a worker without a GPU."""
        return max(1, int(self.workers.cpus))


def lay_out(config: TrainConfig, resources: Resources) -> Layout:
    """Divide the cluster between the workers and the tasks that feed them.

    Raises:
        ValueError: the cluster cannot hold it, or the workers cannot share the batch evenly.
    """
    ray = config.ray if config.device != "cpu" else replace(config.ray, gpus_per_actor=0.0)
    on_gpus = uses_gpus(ray, resources.gpus)
    if not on_gpus and not ray.wait_for_nodes:
        ray = replace(ray, actors=ray.actors or 1)
    workers = model_pool(ray, resources)
    if ray.wait_for_nodes:
        feed_cpus = 1.0
    elif ray.cpus_per_actor is None and not on_gpus:  # the cores without GPUs: first those that one feeding task needs
        feed_cpus = min(1.0, resources.most_cpus / 2)
        share = resources.share(workers.actors, gpus=0, spared=feed_cpus + 2 * READ_CPUS)
        workers = replace(workers, cpus=max(0.01, round(share - 0.005, 2)))
    else:
        left = resources.without(workers)
        room = left.most_cpus - 2 * READ_CPUS if left else 0.0  # refused below where there is none
        feed_cpus = min(1.0, max(0.1, round(room - 0.005, 2)))
    check_batch(config, workers.actors)
    check_pools([workers, Pool(actors=1, cpus=feed_cpus, gpus=0)], resources, ray)
    return Layout(workers=workers, feed_cpus=feed_cpus)


def check_batch(config: TrainConfig, workers: int) -> None:
    """Refuse a batch that the workers and micro-batches cannot share evenly.

    Raises:
        ValueError: names the numbers and what fits.
    """
    size = config.recipe.batch_size
    fixed = config.accumulation or 1
    if size % (workers * fixed):
        fitting = [n for n in range(1, size + 1) if size % (n * fixed) == 0]
        parts = f"{workers} workers" + (f" x {fixed} micro-batches" if fixed > 1 else "")
        hint = " without --accumulation it can;" if size % workers == 0 else ""
        raise ValueError(
            f"a batch of {size} samples cannot be shared by {parts}:{hint} --ray.actors may be "
            f"{', '.join(map(str, fitting)) or 'none'}. "
            "The batch is that of all workers together, so that the result does not depend on their number."
        )


def identity(
    config: TrainConfig,
    classes: ClassSet,
    shards: ShardSet,
    found: Survey,
    *,
    validation: ShardSet | None,
    has_gpus: bool,
) -> dict[str, Any]:
    """All that changes the trained network or what is measured, as JSON values.

    Left out: the number of workers, micro-batches, compile, memory order, checkpoints, places.
    """
    recipe = dataclasses.asdict(config.recipe)
    recipe.pop("accumulation")
    student = dataclasses.asdict(config.student)
    for name in ("weights", "sha256"):
        student.pop(name)
    student["weights"] = student_weights_digest(config.student, config.storage)
    device, precision = resolve(config.device, config.precision, has_gpus=has_gpus)
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
        "device": device,
        "precision": precision,
        "validation": None
        if validation is None
        else {"shards": validation.digest, "every": config.validation_every, "limit": config.validation_limit},
    }


def describe(config: TrainConfig, order: Order, found: Survey, layout: Layout, *, start: int) -> str:
    """The plan as text."""
    recipe = config.recipe
    epochs = recipe.iterations * recipe.batch_size / order.epoch_samples
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in found.reasons.items() if count)
    parts = config.micro_batches(layout.workers.actors)
    micro = f" in {parts} micro-batches each" if parts > 1 else ""
    lines = [
        f"{order.epoch_samples:,} images to train on" + (f" (left out: {left_out})" if left_out else ""),
        f"{config.student.architecture}, {recipe.iterations:,} iterations of {recipe.batch_size} samples{micro}, crops "
        f"of {recipe.crop}, learning rate {recipe.learning_rate:g}: {epochs:.1f} epochs",
        f"workers: {layout.workers}{'' if layout.workers.gpus else ', on CPUs'}; augmenting tasks: "
        f"{layout.feed_cpus:g} cores each",
        f"output: {config.output}" + (f", going on after iteration {start:,}" if start else ""),
    ]
    if config.device == "auto" and config.ray.gpus_per_actor is None and not layout.workers.gpus:
        lines.append(
            "note: there are no GPUs here, so this trains on CPUs; where an autoscaler is to add nodes with GPUs, give "
            "--ray.wait-for-nodes --ray.actors N --ray.gpus-per-actor 1"
        )
    if config.preset == "voc" and config.student.init in ("imagenet", "none"):
        lines.append(
            "note: preset voc is for a network that has seen COCO (--student.init caffe or checkpoint); for one from "
            "ImageNet there is --preset voc-imagenet"
        )
    return "\n".join(lines)
