"""One update of the weights: micro-batches, the loss over all valid pixels of all workers, the step. Needs no Ray.

Shapes: n samples of one micro-batch, S outputs of the student.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wsss_ray.config.train import Optimizer, TrainConfig
from wsss_ray.models.device import Compute
from wsss_ray.models.student.network import StudentNetwork
from wsss_ray.models.student.spec import IGNORE


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate `base * (1 - iteration / iterations) ** power`; every group has the same factor."""

    iterations: int
    power: float

    def factor(self, iteration: int) -> float:
        """Return the factor of the first rate at an iteration (from 0)."""
        return float((1 - iteration / self.iterations) ** self.power)


class Updater:
    """The network that the workers share, and its optimizer."""

    def __init__(
        self,
        student: StudentNetwork,
        *,
        compute: Compute,
        optimizer: Optimizer,
        learning_rate: float,
        momentum: float,
        weight_decay: float,
        schedule: Schedule,
        accumulation: int,
    ) -> None:
        """Create the optimizer. `model` may then be replaced by the compiled student or by one that workers share.

        Args:
            student: on its device, in training mode.
            compute: device and precision.
            optimizer: sgd or adamw.
            learning_rate: of the backbone at the first update.
            momentum: of SGD, or AdamW's first beta.
            weight_decay: for the groups that have it.
            schedule: decay of the learning rate.
            accumulation: number of micro-batches of an update.
        """
        self.student = student
        self.model: nn.Module = student
        self.compute = compute
        self.schedule = schedule
        self.accumulation = accumulation
        groups = student.parameter_groups(learning_rate, weight_decay)
        self._rates = [group["lr"] for group in groups]
        self._base_rate = learning_rate
        self.optimizer: torch.optim.Optimizer
        if optimizer == "adamw":
            self.optimizer = torch.optim.AdamW(groups, betas=(momentum, 0.999))
        else:
            self.optimizer = torch.optim.SGD(groups, momentum=momentum)

    @classmethod
    def of(cls, config: TrainConfig, student: StudentNetwork, *, compute: Compute, workers: int) -> Updater:
        """Return the updater of a configuration, for one of a number of workers; `student` is in training mode."""
        recipe = config.recipe
        return cls(
            student,
            compute=compute,
            optimizer=recipe.optimizer,
            learning_rate=recipe.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            schedule=Schedule(iterations=recipe.iterations, power=config.power),
            accumulation=config.micro_batches(workers),
        )

    @property
    def workers(self) -> int:
        """Return the number of processes that train together."""
        return dist.get_world_size() if dist.is_initialized() else 1

    def learning_rate(self, iteration: int) -> float:
        """Return the rate of the backbone at an iteration (from 0)."""
        return self._base_rate * self.schedule.factor(iteration)

    def update(self, iteration: int, images: np.ndarray, labels: np.ndarray) -> Tensor:
        """Make one update with the samples of this worker, together with the other workers.

        Args:
            iteration: from 0; it determines the learning rate.
            images: (accumulation * n, crop, crop, 3) uint8 RGB.
            labels: (accumulation * n, crop, crop) int16 channels or IGNORE.

        Returns:
            (S,) float32 on the device: this worker's part of each output's mean loss over all valid pixels; the sum
            over workers is that loss.
        """
        factor = self.schedule.factor(iteration)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        targets = [self.student.targets(part) for part in self._to_device(labels).chunk(self.accumulation)]
        counts = self._count_valid(targets)
        pixels = self._to_device(images).permute(0, 3, 1, 2)  # a view: channels last in memory
        losses = torch.zeros(len(counts), device=self.compute.device)
        self.optimizer.zero_grad(set_to_none=True)
        parts = zip(pixels.chunk(self.accumulation), targets, strict=True)
        for index, (part, part_targets) in enumerate(parts):
            with self._sharing(last=index == self.accumulation - 1):
                with self._autocast():
                    outputs = self.model(part)
                normalized = self.student.loss_sums(outputs, part_targets) / counts
                (normalized.sum() * self.workers).backward()  # DDP averages the workers' gradients; these add up
                losses += normalized.detach()
        self.optimizer.step()
        return losses

    def _count_valid(self, targets: Sequence[Sequence[Tensor]]) -> Tensor:
        """Return the (S,) valid pixels of every output over all micro-batches and workers, at least 1."""
        counts = torch.stack([torch.stack([(target != IGNORE).sum() for target in part]) for part in targets]).sum(0)
        if self.workers > 1:
            dist.all_reduce(counts)
        return counts.clamp(min=1)

    def _to_device(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array.copy())  # the array is in shared memory
        if self.compute.device.type == "cuda":
            return tensor.pin_memory().to(self.compute.device, non_blocking=True)
        return tensor

    def _autocast(self) -> torch.autocast:
        dtype = self.compute.autocast_dtype
        return torch.autocast(self.compute.device.type, dtype=dtype, enabled=dtype is not None)

    @contextmanager
    def _sharing(self, *, last: bool) -> Iterator[None]:
        """Send gradients to the other workers only with the last micro-batch."""
        waits = isinstance(self.model, DistributedDataParallel) and not last
        with self.model.no_sync() if waits else nullcontext():  # type: ignore[operator]
            yield
