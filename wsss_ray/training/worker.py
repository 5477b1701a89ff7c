"""The work of every training worker: build the student, continue from the last checkpoint, update, report, save."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

import ray
import ray.train
import torch
import torch.distributed as dist
from ray.actor import ActorHandle
from ray.train.torch import get_device, prepare_model
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from wsss_ray.classes import ClassSet
from wsss_ray.config.student import DEEPLAB
from wsss_ray.config.train import TrainConfig
from wsss_ray.engine.ownership import Ownership
from wsss_ray.models.device import Compute, resolve_compute
from wsss_ray.models.student.building import build_student
from wsss_ray.models.student.files import encode_student
from wsss_ray.models.student.header import STUDENT_DIGEST_FILE, STUDENT_FILE
from wsss_ray.models.student.network import StudentNetwork
from wsss_ray.shards.units import Unit
from wsss_ray.storage.errors import StorageError
from wsss_ray.storage.storage import Storage
from wsss_ray.training.augmentation import Augmentation
from wsss_ray.training.checkpoint import read_checkpoint, restore_snapshot, take_snapshot, write_checkpoint
from wsss_ray.training.checkpoint_files import list_checkpoints
from wsss_ray.training.feed import Batch, Feed
from wsss_ray.training.history import History
from wsss_ray.training.initial_weights import fetch_student_weights
from wsss_ray.training.metrics import IterationMetrics
from wsss_ray.training.monitor import TrainingState, send_retries
from wsss_ray.training.order import Order
from wsss_ray.training.sources import LabelPlan
from wsss_ray.training.updates import Updater
from wsss_ray.training.validation import Validation

_SYNC_BUFFERS = (
    "forward_sync_buffers"  # newer PyTorch's name
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers"
)
"""Option of DDP to send statistics at every step: they are frozen here."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Work and settings that the driver sends to every worker."""

    config: TrainConfig
    classes: ClassSet
    images: Storage
    units: Sequence[Unit]
    labels: LabelPlan
    order: Order
    output: Storage
    ownership: Ownership
    """That of the driver."""
    validation: Validation | None
    monitor: ActorHandle
    feed_cpus: float
    """Cores that an augmenting task reserves."""
    threads: int
    """Threads of PyTorch on a CPU."""


class NotFiniteError(ValueError):
    """The loss, which all workers know, or the weights are not finite; the text names the iteration and samples."""

    def __init__(self, text: str, *, certain: bool) -> None:
        """Create the error; `certain`: samples of this worker are the cause."""
        super().__init__(text)
        self.certain = certain


def train_worker(assignment: Assignment) -> None:
    """Train from the last checkpoint to the end. Runs in every worker of Ray Train's group.

    A problem that a restart does not solve (a damaged image, a loss that is not finite, too little memory, a full disk,
    a store that stays unreachable, a GPU that does not start) is reported to the monitor. Ray starts the group again
    after any error; the new group then returns immediately.
    """
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(assignment.threads)
    if cast("TrainingState", ray.get(assignment.monitor.state.remote())).problem is not None:
        return
    try:
        compute = _resolve_device(assignment.config)
        start = _agree_on_start(assignment, rank)
        if start is not None:
            Worker(assignment, compute, rank=rank, workers=workers).run(start)
    except (ValueError, StorageError, torch.OutOfMemoryError) as error:
        text = str(error)
        if isinstance(error, torch.OutOfMemoryError):
            text = f"{text} More micro-batches (--accumulation) give the same network with less memory."
        ray.get(assignment.monitor.report_problem.remote(text, certain=getattr(error, "certain", True)))
        if workers > 1 and not isinstance(error, NotFiniteError):
            raise  # the other workers do not know of it, and wait for this one
    finally:
        send_retries(assignment.monitor)


class Worker:
    """One of the processes that train together."""

    def __init__(self, assignment: Assignment, compute: Compute, *, rank: int, workers: int) -> None:
        """Build the student and its updater."""
        self.assignment = assignment
        self.config = config = assignment.config
        self.rank = rank
        self.workers = workers
        self.recipe = config.recipe
        self.compute = compute
        self.student = self._build()
        self.updater = Updater.of(config, self.student, compute=self.compute, workers=workers)
        self._saver = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._saving: Future[None] | None = None
        self._pending: list[tuple[Batch, Tensor]] = []

    def run(self, start: int) -> None:
        """Train from iteration `start` to the end."""
        if self.rank == 0:
            self.assignment.output.sweep()
        if start:
            restore_snapshot(read_checkpoint(self.assignment.output, start), self.student, self.updater.optimizer)
        self._share()
        self.history = History(self.assignment.output, start=start) if self.rank == 0 else None
        self.student.train()
        iterations = self.recipe.iterations
        for batch in self._feed().batches(
            rank=self.rank,
            workers=self.workers,
            start=start,
            end=iterations,
            cpus=self.assignment.feed_cpus,
            monitor=self.assignment.monitor,
        ):
            assert batch.iteration == start, f"the feed is at {batch.iteration}, the training at {start}"
            torch.manual_seed(hash((self.config.seed, batch.iteration, self.rank)) % 2**63)  # for networks with dropout
            self._pending.append((batch, self.updater.update(batch.iteration, batch.images, batch.labels)))
            start += 1
            validates = self.assignment.validation is not None and _due(start, self.config.validation_every, iterations)
            saves = _due(start, self.config.checkpoint_every, iterations)
            if validates or saves or len(self._pending) >= self._patience:
                self._record(validates=validates)
            if saves:
                self._check_weights(start)
                self._save(start)
        self._finish()

    def _build(self) -> StudentNetwork:
        weights = fetch_student_weights(self.config.student, self.config.storage)
        torch.manual_seed(self.config.seed)
        student = build_student(self.config.student, self.assignment.classes, weights=weights)
        if self.config.channels_last:
            student = student.to(memory_format=torch.channels_last)
        torch.set_float32_matmul_precision("high" if self.compute.tier == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = self.compute.tier == "tf32"
        torch.backends.cudnn.benchmark = True  # all crops have one size
        return student.to(self.compute.device)

    def _share(self) -> None:
        """Compile the network if configured, and let the workers share its gradients."""
        model: torch.nn.Module = self.student
        if self.config.compile:
            model = torch.compile(model)  # type: ignore[assignment]
        if self.workers > 1:
            options = sharing_options(self.student.spec.architecture)
            model = prepare_model(model, move_to_device=False, parallel_strategy_kwargs=options)
        self.updater.model = model

    def _feed(self) -> Feed:
        red, green, blue = (round(value) for value in self.student.spec.preprocessing.mean)
        return Feed(
            images=self.assignment.images,
            units=self.assignment.units,
            labels=self.assignment.labels,
            order=self.assignment.order,
            augmentation=Augmentation(
                crop=self.recipe.crop,
                scales=self.recipe.random_scales,
                flip=self.config.flip,
                fill=(red, green, blue),
            ),
            spec=self.student.spec,
            unusable=self.config.unusable,
        )

    @property
    def _patience(self) -> int:
        """Return the iterations between readings of the loss: on a GPU a reading waits for all queued work."""
        return 10 if self.compute.device.type == "cuda" else 1

    def _record(self, *, validates: bool) -> None:
        """Read the losses since the last call; report them to the monitor and the history."""
        batches, pending = [batch for batch, _ in self._pending], torch.stack([loss for _, loss in self._pending])
        self._pending.clear()
        mine = pending.cpu()
        if self.workers > 1:
            dist.all_reduce(pending)
        losses = pending.sum(1).tolist()
        self._check_finite(batches, losses, mine)
        miou = None
        if validates and self.assignment.validation is not None:
            miou = self.assignment.validation.miou(self.student, self.compute, rank=self.rank, workers=self.workers)
        unusable = [text for batch in batches for text in batch.unusable]
        if unusable:
            self.assignment.monitor.report_unusable.remote(unusable)
        send_retries(self.assignment.monitor)
        if self.history is None:
            return
        for index, (batch, loss) in enumerate(zip(batches, losses, strict=True)):
            row = self._row(batch, loss, miou if index == len(batches) - 1 else None)
            self.history.add(row)
        self.assignment.monitor.report_iteration.remote(
            iteration=row.iteration, loss=row.loss, learning_rate=row.learning_rate, miou=miou
        )

    def _row(self, batch: Batch, loss: float, miou: float | None = None) -> IterationMetrics:
        rate = self.updater.learning_rate(batch.iteration)
        return IterationMetrics(iteration=batch.iteration + 1, loss=loss, learning_rate=rate, miou=miou)

    def _check_finite(self, batches: Sequence[Batch], losses: Sequence[float], mine: Tensor) -> None:
        """Stop at a loss that is not finite, and name the samples."""
        for batch, loss, parts in zip(batches, losses, mine, strict=True):
            if math.isfinite(loss):
                continue
            if self.history is not None:
                for earlier, value in zip(batches, losses, strict=True):
                    if earlier.iteration <= batch.iteration:
                        self.history.add(self._row(earlier, value))
                self.history.write()
            raise NotFiniteError(
                f"the loss of iteration {batch.iteration + 1} is {loss}, at learning rate "
                f"{self.updater.learning_rate(batch.iteration):.3g}, with the samples {', '.join(batch.image_ids)} "
                f"(by output: {', '.join(f'{part:.4g}' for part in parts.tolist())}). A smaller --learning-rate or "
                "--precision float32 may help; a changed configuration needs another --output. The last checkpoint is "
                "kept.",
                certain=not bool(torch.isfinite(parts).all()),
            )

    def _save(self, iteration: int) -> None:
        """Write the history and then a checkpoint while training continues; only the first worker writes."""
        if self.history is None:
            return
        self._wait_for_saving()
        self._check_driver()
        self.history.write()
        snapshot = take_snapshot(iteration, self.student, self.updater.optimizer)
        self._saving = self._saver.submit(
            write_checkpoint, self.assignment.output, snapshot, keep=self.config.keep_checkpoints
        )

    def _check_weights(self, iteration: int) -> None:
        """Stop before a checkpoint of weights that are not finite. All workers have the same weights."""
        if not all(torch.isfinite(parameter).all() for parameter in self.student.parameters()):
            if self.history is not None:
                self.history.write()
            raise NotFiniteError(
                f"the weights after iteration {iteration} are not finite, at learning rate "
                f"{self.updater.learning_rate(iteration - 1):.3g}. A smaller --learning-rate or --precision float32 "
                "may help; a changed configuration needs another --output. The last checkpoint is kept.",
                certain=True,
            )

    def _check_driver(self) -> None:
        """Stop before a write if another driver owns the output: of two, the one that started last continues."""
        if not self.assignment.ownership.is_current():
            raise ValueError(
                f"another driver has taken over {self.assignment.output.uri}, and continues from its last checkpoint. "
                "This one ends."
            )

    def _wait_for_saving(self) -> None:
        if self._saving is not None:
            self._saving.result()
            self._saving = None

    def _finish(self) -> None:
        """Write the final student, with its digest beside it."""
        self._check_weights(self.recipe.iterations)
        if self.history is not None:
            self._wait_for_saving()
            self._check_driver()
            self.history.close()
            data = encode_student(self.student)
            self.assignment.output.write(STUDENT_DIGEST_FILE, f"{hashlib.sha256(data).hexdigest()}\n".encode())
            self.assignment.output.write(STUDENT_FILE, data)
        if self.workers > 1:
            dist.barrier()


def sharing_options(architecture: str) -> dict[str, bool]:
    """Return the options of DDP for a student: some networks of transformers hold layers that they do not use."""
    return {_SYNC_BUFFERS: False, "find_unused_parameters": architecture not in DEEPLAB}


def _resolve_device(config: TrainConfig) -> Compute:
    """Return device and precision, which the driver has decided, after a check of this worker's GPU."""
    if config.device == "cuda" and torch.cuda.is_available():
        torch.cuda.set_device(get_device())
    return resolve_compute(config.device, config.precision)


def _due(iteration: int, every: int, end: int) -> bool:
    return iteration % every == 0 or iteration == end


def _agree_on_start(assignment: Assignment, rank: int) -> int | None:
    """Return the iteration of the last checkpoint that the first worker finds; None if training must not begin."""
    start = None
    if rank == 0:
        monitor = assignment.monitor
        try:
            last = (list_checkpoints(assignment.output) or [0])[-1]
            start = last if ray.get(monitor.begin_training.remote(last)) is None else None
        except StorageError as error:
            ray.get(monitor.report_problem.remote(str(error)))
    return cast("int | None", _broadcast(start))


def _broadcast(value: object) -> object:
    """Return the first worker's value."""
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]
