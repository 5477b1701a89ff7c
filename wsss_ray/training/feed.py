"""The stream of training samples: Ray Data reads, decodes and augments on CPUs; the worker gets finished batches.

Each worker runs its own data set over the stretches that are left: *read* (the units of a stretch, once; encoded images
and labels of this worker's slots, in pieces of some iterations) → *augment* (a piece: decode, resize, crop, mirror; raw
pixels). The order is kept, and nothing is split dynamically. One Ray row is one piece, so that Ray Data neither joins
nor divides pieces.
"""

from __future__ import annotations

import dataclasses
import functools
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import ray
from ray.actor import ActorHandle
from ray.data import DataContext, ExecutionResources, TaskPoolStrategy
from ray.exceptions import RaySystemError

from wsss_ray.engine.ledger import DEATHS_BEFORE_GIVING_UP, AttemptHistory
from wsss_ray.engine.ray_data import set_data_context
from wsss_ray.engine.resources import READ_CPUS
from wsss_ray.images.decoding import decode_row
from wsss_ray.images.header import ImageError
from wsss_ray.images.label_png import check_label_size, decode_ids, label_limit
from wsss_ray.labels.inputs import LabelFile
from wsss_ray.models.student.spec import IGNORE, StudentSpec, label_to_index
from wsss_ray.shards.footers import ShardError
from wsss_ray.shards.image_shards import read_unit
from wsss_ray.shards.units import Unit
from wsss_ray.storage.errors import StorageError
from wsss_ray.storage.storage import Storage
from wsss_ray.training.augmentation import Augmentation
from wsss_ray.training.monitor import send_retries
from wsss_ray.training.order import Order, Stretch, TrainingSample, sample_stream
from wsss_ray.training.sources import LabelPlan

PIECE_SAMPLES = 64
"""Samples of one augmenting task, approximately: tenths of a second of work; a task costs some hundredths."""
_READERS = 8
_STORE_SHARE = 0.5
"""Share of the cluster's object store for samples that wait for the workers."""
_STRETCHES_AHEAD = 2
"""Concurrent reading tasks: a stretch may be a hundred megabytes."""

_ENCODED = pa.struct(
    [
        ("epoch", pa.int64()),
        ("unit", pa.int64()),
        ("row", pa.int64()),
        ("image_id", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("image", pa.large_binary()),
        ("label", pa.large_binary()),
        ("problem", pa.string()),
    ]
)
READ_SCHEMA = pa.schema([("iteration", pa.int64()), ("samples", pa.large_list(_ENCODED)), ("problem", pa.string())])
"""One encoded piece: its first iteration, its samples by iteration, then by slot, or why they cannot be read."""

PIECE_SCHEMA = pa.schema(
    [
        ("iteration", pa.int64()),
        ("images", pa.large_binary()),
        ("labels", pa.large_binary()),
        ("image_ids", pa.list_(pa.string())),
        ("unusable", pa.list_(pa.string())),
        ("problem", pa.string()),
    ]
)
"""One finished piece: RGB bytes (samples, crop, crop, 3), channels (samples, crop, crop) as int16, ids by sample, why
samples could not be used, and why training cannot continue, if so."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Samples of one worker in one iteration."""

    iteration: int
    """From 0."""
    images: np.ndarray
    """(n, crop, crop, 3) uint8 RGB, read-only."""
    labels: np.ndarray
    """(n, crop, crop) int16 channels or IGNORE, read-only."""
    image_ids: tuple[str, ...]
    unusable: tuple[str, ...]
    """Images of this piece that could not be used, with the reason; only in the piece's first batch."""


class BadSampleError(ValueError):
    """An image or label cannot be used; the text names it."""


@dataclass(frozen=True, kw_only=True)
class Feed:
    """Settings and inputs from which a worker's batches are created. It is pickled to the tasks."""

    images: Storage
    """Folder of the image shards."""
    units: Sequence[Unit]
    labels: LabelPlan
    order: Order
    augmentation: Augmentation
    spec: StudentSpec
    unusable: Literal["error", "leave-out"]

    def batches(
        self, *, rank: int, workers: int, start: int, end: int, cpus: float, monitor: ActorHandle
    ) -> Iterator[Batch]:
        """Yield the batches of a worker for iterations `start` to `end` (from 0, the end excluded), in order.

        Ray must be connected.

        Args:
            rank: index of the worker.
            workers: number of workers; they divide the batch.
            start: first iteration.
            end: the iteration after the last.
            cpus: cores that an augmenting task reserves.
            monitor: the TrainingMonitor actor; it records every piece.

        Raises:
            BadSampleError: a sample cannot be used, and `unusable` is error, or shards or labels cannot be read.
        """
        share = self.order.batch_size // workers
        slots = range(rank * share, (rank + 1) * share)
        stretches = self.order.stretches(start, end)
        if not stretches:
            return
        set_data_context()
        context = DataContext.get_current()
        context.execution_options.preserve_order = True
        store = ray.cluster_resources().get("object_store_memory", 0.0)
        context.execution_options.resource_limits = ExecutionResources.for_limits(
            object_store_memory=_STORE_SHARE * store / workers  # each data set assumes that it is the only one
        )
        context.target_max_block_size = 1  # every piece becomes its own block and task
        feed = ray.put(self)
        name = uuid.uuid4().hex  # the ledger separates the attempts of different sessions
        rows = [dataclasses.asdict(stretch) for stretch in stretches]
        dataset = (
            ray.data.from_items(rows, override_num_blocks=len(rows))  # from_arrow reserves a whole core for each row
            .map_batches(
                functools.partial(_read, feed=feed, slots=slots, monitor=monitor, stage=f"read {name}"),
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=READ_CPUS,
                compute=TaskPoolStrategy(size=min(_STRETCHES_AHEAD, len(stretches))),
            )
            .map_batches(
                functools.partial(_augment, feed=feed, monitor=monitor, stage=f"augment {name}"),
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=cpus,
            )
        )
        crop = self.augmentation.crop
        # One split, so that Ray Data runs in its own process: a thread here would slow the updates down.
        (stream,) = dataset.streaming_split(1)
        whole: Any = None  # blocks as they are; Ray's annotation lacks None
        for pieces in stream.iter_batches(batch_size=whole, batch_format="pyarrow", prefetch_batches=2):
            table = cast("pa.Table", pieces)
            for row in range(table.num_rows):
                yield from _batches_of(table.slice(row, 1), share, crop)

    def read(self, stretch: Stretch, slots: range) -> Iterator[pa.Table]:
        """Yield the encoded samples of a stretch in pieces, each a table of one row in READ_SCHEMA."""
        samples = self.order.slots(stretch.index, slots)
        wanted = [[slot[offset] for slot in samples] for offset in range(stretch.first, stretch.last)]
        encoded = self._read_samples([sample for batch in wanted for sample in batch])
        step = max(1, PIECE_SAMPLES // len(slots))
        for begin in range(0, len(wanted), step):
            piece = [encoded[sample] for batch in wanted[begin : begin + step] for sample in batch]
            iteration = stretch.index * self.order.length + stretch.first + begin
            yield pa.Table.from_pylist([{"iteration": iteration, "samples": piece}], schema=READ_SCHEMA)

    def _read_samples(self, samples: Sequence[TrainingSample]) -> dict[TrainingSample, dict[str, Any]]:
        by_unit: dict[int, list[TrainingSample]] = {}
        for sample in samples:
            by_unit.setdefault(sample.unit, []).append(sample)
        with ThreadPoolExecutor(min(_READERS, len(by_unit))) as pool:
            parts = pool.map(lambda unit: self._read_unit(unit, by_unit[unit]), by_unit)
            return {sample: row for part in parts for sample, row in part.items()}

    def _read_unit(self, index: int, samples: Sequence[TrainingSample]) -> dict[TrainingSample, dict[str, Any]]:
        unit = self.units[index]
        columns = ["image_id", "height", "width", "image", *self.labels.columns]
        chosen = sorted({sample.row for sample in samples})
        table = read_unit(self.images, unit, columns=columns)
        ids = table["image_id"].to_pylist()
        rows = dict(zip(chosen, table.take(chosen).to_pylist(), strict=True))
        labels = dict(zip(chosen, self._labels(unit, ids, rows, chosen), strict=True))
        return {
            sample: {
                "epoch": sample.epoch,
                "unit": sample.unit,
                "row": sample.row,
                **{name: rows[sample.row][name] for name in ("image_id", "height", "width", "image")},
                "label": labels[sample.row].png,
                "problem": labels[sample.row].problem,
            }
            for sample in samples
        }

    def _labels(
        self, unit: Unit, ids: Sequence[str], rows: dict[int, dict[str, Any]], chosen: Sequence[int]
    ) -> list[LabelFile]:
        if self.labels.source is None:
            return [LabelFile(png=rows[row]["truth"]) for row in chosen]
        return self.labels.source.read(unit, ids, chosen)

    def augment(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Decode and augment encoded samples; return the columns of PIECE_SCHEMA without the iteration."""
        crop = self.augmentation.crop
        images = np.empty((len(samples), crop, crop, 3), np.uint8)
        labels = np.empty((len(samples), crop, crop), np.int16)
        unusable = []
        for index, row in enumerate(samples):
            try:
                images[index], labels[index] = self._sample(row)
            except (ImageError, BadSampleError) as error:
                unusable.append(f"{row['image_id']}: {error}")
                images[index], labels[index] = self.augmentation.fill, IGNORE
        return {
            "images": images.tobytes(),
            "labels": labels.tobytes(),
            "image_ids": [row["image_id"] for row in samples],
            "unusable": unusable,
            "problem": unusable[0] if unusable and self.unusable == "error" else None,
        }

    def _sample(self, row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        if row["problem"] is not None or row["label"] is None:
            raise BadSampleError(row["problem"] or "it has no label")
        image = decode_row(row, exif=self.units[row["unit"]].exif)
        label = decode_ids(row["label"], palette=self.spec.palette_bytes(), max_pixels=label_limit(image.shape))
        check_label_size(label, image.shape)
        sample = TrainingSample(epoch=row["epoch"], unit=row["unit"], row=row["row"])
        random = sample_stream(self.order.seed, sample)
        image, label = self.augmentation(image, label, random, ignore=self.spec.ignore_id)
        try:
            return image, label_to_index(label, self.spec)
        except ValueError as error:
            raise BadSampleError(str(error)) from error


def _read(batch: pa.Table, feed: ray.ObjectRef, slots: range, monitor: ActorHandle, stage: str) -> Iterator[pa.Table]:
    """Read a stretch in pieces: the first task."""
    stretch = Stretch(**batch.to_pylist()[0])
    with _recorded(monitor, stage, str(stretch.index)) as history:
        if history.deaths >= DEATHS_BEFORE_GIVING_UP:
            yield _unread(
                "the process that reads shards died several times: too little memory for --shuffle-window images at "
                "once, or a damaged file that crashes its reader."
            )
            return
        try:
            yield from _unpacked(feed).read(stretch, slots)
        except (ShardError, BadSampleError, StorageError) as error:  # Ray Data does not keep the text
            yield _unread(str(error))


def _unread(problem: str) -> pa.Table:
    return pa.Table.from_pylist([{"iteration": -1, "samples": [], "problem": problem}], schema=READ_SCHEMA)


@contextmanager
def _recorded(monitor: ActorHandle, stage: str, work: str) -> Iterator[AttemptHistory]:
    """Record an attempt with the monitor: Ray Data would repeat for ever a task that kills its process."""
    history = cast("AttemptHistory", ray.get(monitor.history.remote(stage, work)))
    ray.get(monitor.begin.remote(stage, work, ray.get_runtime_context().get_node_id()))
    try:
        yield history
    finally:
        send_retries(monitor)
        ray.get(monitor.end.remote(stage, work, finished=True))


def _unpacked(feed: ray.ObjectRef) -> Feed:
    """Return the feed.

    Raises:
        BadSampleError: it cannot be unpickled here. Ray Data would repeat for ever a task that ends with Ray's error.
    """
    try:
        return cast("Feed", ray.get(feed))
    except RaySystemError as error:
        reason = str(error).partition("\n")[0]
        raise BadSampleError(
            f"a task cannot read the description of its samples: {reason}. All nodes need the same packages and code."
        ) from error


def _augment(batch: pa.Table, feed: ray.ObjectRef, monitor: ActorHandle, stage: str) -> pa.Table:
    """Augment a piece: the second task."""
    row = batch.to_pylist()[0]
    with _recorded(monitor, stage, str(row["iteration"])) as history:
        if row["problem"]:
            ready = {"problem": row["problem"]}
        elif history.deaths >= DEATHS_BEFORE_GIVING_UP:
            ids = ", ".join(sorted({sample["image_id"] for sample in row["samples"]}))
            ready = {
                "problem": "the process that decodes images died several times: too little memory, or a file that "
                f"crashes its decoder, among {ids}. Create the shards without it."
            }
        else:
            try:
                ready = _unpacked(feed).augment(row["samples"])
            except BadSampleError as error:
                ready = {"problem": str(error)}
    return pa.Table.from_pylist([{"iteration": row["iteration"], **ready}], schema=PIECE_SCHEMA)


def _batches_of(piece: pa.Table, share: int, crop: int) -> Iterator[Batch]:
    """Yield the batches of a piece without copying pixels."""
    row = {name: piece[name][0] for name in PIECE_SCHEMA.names}
    if row["problem"].is_valid:
        raise BadSampleError(row["problem"].as_py())
    images = np.frombuffer(row["images"].as_buffer(), np.uint8).reshape(-1, share, crop, crop, 3)
    labels = np.frombuffer(row["labels"].as_buffer(), np.int16).reshape(-1, share, crop, crop)
    ids, unusable = row["image_ids"].as_py(), tuple(row["unusable"].as_py())
    for index in range(len(images)):
        yield Batch(
            iteration=row["iteration"].as_py() + index,
            images=images[index],
            labels=labels[index],
            image_ids=tuple(ids[index * share : (index + 1) * share]),
            unusable=unusable if index == 0 else (),
        )
