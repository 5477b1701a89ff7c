"""The plan of a training: the resources of workers and feeding tasks, and the text that is printed first."""

from __future__ import annotations

from dataclasses import dataclass, replace

from wsss_ray.config.train import TrainConfig
from wsss_ray.engine.resources import NO_GPUS, READ_CPUS, Pool, Resources, check_pools, model_pool, uses_gpus
from wsss_ray.training.order import Order
from wsss_ray.training.sources import Survey


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """Resources of the workers, and of the tasks that feed them."""

    workers: Pool
    feed_cpus: float
    """Cores that an augmenting task reserves."""

    @property
    def threads(self) -> int:
        """Return the threads of a worker without a GPU."""
        return max(1, int(self.workers.cpus))


def allocate(config: TrainConfig, resources: Resources) -> Allocation:
    """Divide the cluster between the workers and the tasks that feed them.

    Raises:
        ValueError: the cluster is too small, or the workers cannot share the batch evenly.
    """
    ray = config.ray if config.device != "cpu" else replace(config.ray, gpus_per_actor=0.0)
    on_gpus = uses_gpus(ray, resources.gpus)
    if not on_gpus and not ray.wait_for_nodes:
        ray = replace(ray, actors=ray.actors or 1)
    workers = model_pool(ray, resources)
    if workers.actors > 1 and workers.gpus % 1:
        raise ValueError(
            f"{workers.actors} training workers with {workers.gpus:g} GPUs each would share a GPU, which NCCL refuses: "
            "give --ray.gpus-per-actor 1 and at most one worker for each GPU (--ray.actors)."
        )
    if ray.wait_for_nodes:
        feed_cpus = 1.0
    elif ray.cpus_per_actor is None and not on_gpus:  # workers on CPUs: one feeding task gets its cores first
        feed_cpus = min(1.0, resources.most_cpus / 2)
        share = resources.share(workers.actors, gpus=0, spared=feed_cpus + 2 * READ_CPUS)
        workers = replace(workers, cpus=max(0.01, round(share - 0.005, 2)))
    else:
        left = resources.without(workers)
        room = left.most_cpus - 2 * READ_CPUS if left else 0.0  # check_pools refuses a cluster without room
        feed_cpus = min(1.0, max(0.1, round(room - 0.005, 2)))
    check_batch(config, workers.actors)
    check_pools([workers, Pool(actors=1, cpus=feed_cpus, gpus=0)], resources, ray)
    return Allocation(workers=workers, feed_cpus=feed_cpus)


def check_batch(config: TrainConfig, workers: int) -> None:
    """Check that the workers and micro-batches can share the batch evenly.

    Raises:
        ValueError: they cannot; names the numbers that can.
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
            "The batch is shared by all workers, so that the result does not depend on their number."
        )


def describe(config: TrainConfig, order: Order, found: Survey, allocation: Allocation, *, start: int) -> str:
    """Return the plan as text."""
    recipe = config.recipe
    epochs = recipe.iterations * recipe.batch_size / order.epoch_samples
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in found.reasons.items() if count)
    parts = config.micro_batches(allocation.workers.actors)
    micro = f" in {parts} micro-batches each" if parts > 1 else ""
    lines = [
        f"{order.epoch_samples:,} images to train on" + (f" (left out: {left_out})" if left_out else ""),
        f"{config.student.architecture}, {recipe.iterations:,} iterations of {recipe.batch_size} samples{micro}, crops "
        f"of {recipe.crop}, learning rate {recipe.learning_rate:g}: {epochs:.1f} epochs",
        f"workers: {allocation.workers}{'' if allocation.workers.gpus else ', on CPUs'}; augmenting tasks: "
        f"{allocation.feed_cpus:g} cores each",
        f"output: {config.output}" + (f", continuing after iteration {start:,}" if start else ""),
    ]
    if found.unknown_ids:
        lines.append(f"note: {found.unknown_ids:,} ids of --only or --exclude are not in the image shards")
    if config.device == "auto" and config.ray.gpus_per_actor is None and not allocation.workers.gpus:
        lines.append(NO_GPUS)
    if config.preset == "voc" and config.student.init in ("imagenet", "none"):
        lines.append(
            "note: preset voc is for a network trained on COCO (--student.init caffe or checkpoint); for weights from "
            "ImageNet use --preset voc-imagenet"
        )
    return "\n".join(lines)
