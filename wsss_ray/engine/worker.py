"""The actors of the pools: run a stage on a unit, isolate what kills, commit what is done."""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.actor import ActorHandle

from wsss_ray.engine import logs
from wsss_ray.engine.ledger import DEATHS_BEFORE_GIVING_UP, Orders
from wsss_ray.engine.stage import Meter, Sink, Stage, StageSpec, WorkerLost
from wsss_ray.engine.telemetry import WorkerMetrics
from wsss_ray.shards.footers import ShardError
from wsss_ray.shards.image_shards import read_unit
from wsss_ray.shards.schemas import IMAGE_SCHEMA
from wsss_ray.shards.units import Unit
from wsss_ray.storage import retries
from wsss_ray.storage.redaction import masked
from wsss_ray.storage.storage import Storage

logger = logging.getLogger(__name__)

TASK_SCHEMA = pa.schema(
    [
        ("unit", pa.string()),
        ("only", pa.list_(pa.string())),
        ("version", pa.string()),
        ("rows", pa.large_binary()),
        ("report", pa.string()),
    ]
)
"""One unit on its way: Unit as JSON; ids of the images to run (null: all) and the version of the label file that
their rows go into; the unit's rows as an Arrow stream; a Report as JSON. One row is one unit: nothing splits it."""

READ_COLUMNS = [name for name in IMAGE_SCHEMA.names if name not in ("source", "truth")]


@dataclass(kw_only=True)
class Report:
    """What the driver hears of a unit."""

    images: int = 0
    counts: dict[str, Any] | None = None
    """The sink's counts, once the unit is committed."""
    seconds: dict[str, float] | None = None
    retries: dict[str, int] | None = None
    """Requests to a store that this unit's workers made again, by reason."""
    read_at: float | None = None
    """When it was read, in seconds since 1970: for the metrics."""
    problem: str | None = None
    """Why the whole unit could not be read; the run goes on without it."""
    fatal: str | None = None
    """Why no unit can go on (a full disk, a store that is away): Ray Data loses the text of what is raised."""

    def add(self, meter: Meter) -> None:
        """Add a meter's seconds."""
        total = self.seconds or {}
        self.seconds = {part: total.get(part, 0.0) + meter.seconds.get(part, 0.0) for part in {*total, *meter.seconds}}

    def add_retries(self) -> None:
        """Add the requests that this process made again and has not told of yet."""
        self.retries = dict(Counter(self.retries or {}) + Counter(retries.take()))


class Gate:
    """Lets units pass together, or one alone."""

    def __init__(self) -> None:
        """Open."""
        self._condition = threading.Condition()
        self._inside = 0
        self._closed = False

    @contextmanager
    def together(self) -> Iterator[bool]:
        """Pass beside others; yields whether nobody else was inside."""
        with self._condition:
            self._condition.wait_for(lambda: not self._closed)
            first = self._inside == 0
            self._inside += 1
        try:
            yield first
        finally:
            with self._condition:
                self._inside -= 1
                self._condition.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until everybody is out, and let nobody in meanwhile."""
        with self._condition:
            self._condition.wait_for(lambda: not self._closed)
            self._closed = True
            self._condition.wait_for(lambda: self._inside == 0)
        try:
            yield
        finally:
            with self._condition:
                self._closed = False
                self._condition.notify_all()


def read_task(batch: pa.Table, images: Storage, ledger: ActorHandle, run: str) -> pa.Table:
    """The first step: a unit's encoded images from storage, checked against its digest.

    A batch is one Task as JSON. A unit that cannot be read, or kills each process that tries, goes on with its reason
    instead of its rows. `run` is part of its name in the ledger, as for UnitWorker.
    """
    logs.configure()
    task = json.loads(batch["task"][0].as_py())
    unit = Unit.from_json(task["unit"])
    meter = Meter()
    report = Report()
    try:
        with _recorded_reading(ledger, f"{run} read", images, unit), meter("read"):
            rows = read_unit(images, unit, columns=READ_COLUMNS)
    except ShardError as error:
        report.problem = masked(str(error))
        logger.warning("left out: %s", error, extra={"stage": "read", "unit": unit.name})
        return _task_table(task, None, report)
    except Exception as error:
        report.fatal = _told(error)
        logger.exception("cannot be read", extra={"stage": "read", "unit": unit.name})
        return _task_table(task, None, report)
    if task["only"] is not None:
        rows = rows.filter(pc.is_in(rows["image_id"], pa.array(task["only"], pa.string())))
    report.images = rows.num_rows
    report.read_at = time.time()
    report.add(meter)
    rows = rows.append_column("error", pa.nulls(rows.num_rows, pa.string()))
    return _task_table(task, rows, report)


@contextmanager
def _recorded_reading(ledger: ActorHandle, stage: str, images: Storage, unit: Unit) -> Iterator[None]:
    """Tell the ledger of the attempt; raises ShardError for a unit over which too many processes have died."""
    orders = cast("Orders", ray.get(ledger.enquire.remote(stage, unit.name)))
    if orders.deaths >= DEATHS_BEFORE_GIVING_UP:
        where = f"{images.describe(unit.shard)}, row group {unit.row_group}"
        raise ShardError(
            f"{where}: {orders.deaths} processes died over reading it: too little memory for a unit, or a damaged file "
            "that crashes its reader. Make this shard again, with fewer --images-per-unit."
        )
    ray.get(ledger.begin.remote(stage, unit.name, ray.get_runtime_context().get_node_id()))
    try:
        yield
    finally:
        ledger.end.remote(stage, unit.name, finished=True)


def _make(spec: StageSpec) -> Stage:
    """Make a stage. Its packages leave half a million objects that stay, which collectors would look at in vain."""
    gc.disable()
    try:
        stage = spec.make()
    finally:
        gc.enable()
    gc.freeze()
    return stage


class UnitWorker:
    """An actor of a pool: holds one stage, takes units."""

    def __init__(self, spec: StageSpec, ledger: ActorHandle, run: str, sink: Sink | None) -> None:
        """Make the stage (load its models).

        Args:
            spec: the stage.
            ledger: the Ledger actor.
            run: name of the run, by which its entries in the ledger differ from another run's.
            sink: commits the unit after this stage; None where another stage follows.
        """
        logs.configure()
        self._name = spec.name
        self._recorded_as = f"{run} {spec.name}"
        self._metrics = WorkerMetrics(spec.name, spec.device_memory)
        self._ledger = ledger
        self._sink = sink
        self._gate = Gate()
        self._node = ray.get_runtime_context().get_node_id()
        self._stage: Stage = _make(spec)
        self._idle_since = time.perf_counter()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Run the stage on one unit and pass it on, or commit it."""
        task = batch.to_pylist()[0]
        report = Report(**json.loads(task["report"]))
        if report.problem is not None or report.fatal is not None:
            return _task_table(task, None, report)
        with logs.at(stage=self._name, unit=Unit.from_json(task["unit"]).name):
            try:
                rows = self._work(task, report)
            except Exception as error:  # what an image raises is caught before
                report.fatal = f"{self._name}: {_told(error)}"
                logger.exception("cannot go on")
                rows = None
        return _task_table(task, rows, report)

    def _work(self, task: dict[str, Any], report: Report) -> pa.Table | None:
        """Run and commit; returns the rows for the next stage, None after the last."""
        unit = Unit.from_json(task["unit"])
        orders = cast("Orders", ray.get(self._ledger.enquire.remote(self._recorded_as, unit.name)))
        if (
            orders.retried
            and self._sink
            and task["version"] is None
            and (counts := self._sink.counts(unit)) is not None
        ):
            report.counts = dict(counts)
            return None
        rows = _from_stream(task["rows"])
        meter = Meter()
        self._metrics.arrived(report.read_at)
        try:
            if orders.isolate:
                logger.warning("died over twice: going on image by image, alone")
                with self._gate.alone():
                    rows = self._one_by_one(unit, rows, orders, meter)
                    self._commit(unit, task, rows, report, meter)
            else:
                with self._gate.together() as first:
                    if first:
                        meter.add("wait", time.perf_counter() - self._idle_since)
                    self._begin(unit)
                    rows = self._together(rows, meter)
                    self._commit(unit, task, rows, report, meter)
                    self._idle_since = time.perf_counter()
        except WorkerLost:
            logger.exception("ending this process, another will start")
            os._exit(1)
        ray.get(self._ledger.end.remote(self._recorded_as, unit.name, finished=True))
        self._metrics.worked(meter.seconds)
        report.add(meter)
        report.read_at = time.time()  # from here on it waits for the next stage
        return None if self._sink else rows

    def _begin(self, unit: Unit, image: str | None = None) -> None:
        ray.get(self._ledger.begin.remote(self._recorded_as, unit.name, self._node, image))

    def _commit(self, unit: Unit, task: dict[str, Any], rows: pa.Table, report: Report, meter: Meter) -> None:
        if self._sink is not None:
            with meter("write"):
                report.counts = dict(self._sink.commit(unit, rows, version=task["version"]))
            self._metrics.committed(rows, report.counts)
            for image_id, error in zip(rows["image_id"].to_pylist(), rows["error"].to_pylist(), strict=True):
                if error is not None:
                    logger.warning("failed: %s", error, extra={"image": image_id})

    def _together(self, rows: pa.Table, meter: Meter) -> pa.Table:
        """The stage on all rows that have not failed; image by image where that raises."""
        all_good = rows["error"].null_count == rows.num_rows
        good = rows if all_good else rows.filter(pc.is_null(rows["error"]))  # which copies the images
        if good.num_rows == 0:
            return self._join(rows, [])
        try:
            return self._join(rows, [self._run(good, meter)])
        except Exception as error:  # noqa: BLE001 - whatever an image makes a library raise is that image's failure
            logger.warning("%s: going on image by image", _told(error))
        _give_back_memory()
        return self._join(rows, [self._run_alone(good.slice(i, 1), meter) for i in range(good.num_rows)])

    def _one_by_one(self, unit: Unit, rows: pa.Table, orders: Orders, meter: Meter) -> pa.Table:
        """Each image alone, its id recorded before it runs; quarantined ones are failed without running."""
        done = []
        for index in range(rows.num_rows):
            row = rows.slice(index, 1)
            image_id = row["image_id"][0].as_py()
            if row["error"][0].is_valid:
                continue
            if image_id in orders.quarantined:
                done.append(self._failed(row, "killed its process twice while alone in it"))
                continue
            self._begin(unit, image_id)
            done.append(self._run_alone(row, meter))
            ray.get(self._ledger.end.remote(self._recorded_as, unit.name, finished=False))
        return self._join(rows, done)

    def _run(self, rows: pa.Table, meter: Meter) -> pa.Table:
        result = self._stage(rows, meter)
        assert result["image_id"].equals(rows["image_id"]), f"{self._name} lost or moved an image"
        return result

    def _run_alone(self, row: pa.Table, meter: Meter) -> pa.Table:
        try:
            with logs.at(image=row["image_id"][0].as_py()):
                return self._run(row, meter)
        except Exception as error:  # noqa: BLE001 - as above
            reason = " ".join(_told(error).split())[:300]
        _give_back_memory()  # which the error's frames held until here
        return self._failed(row, reason)

    def _failed(self, row: pa.Table, reason: str) -> pa.Table:
        index = row.schema.get_field_index("error")
        return row.set_column(index, "error", pa.array([f"{self._name}: {reason}"]))

    def _join(self, rows: pa.Table, results: list[pa.Table]) -> pa.Table:
        """All rows of the unit in its order, in the stage's columns: its results, and the images that failed before."""
        schema = self._stage.output_schema
        failed = rows.filter(pc.is_valid(rows["error"]))
        joined = pa.concat_tables([_fit(part, schema) for part in (*results, failed)])
        place = {image_id: i for i, image_id in enumerate(joined["image_id"].to_pylist())}
        return joined.take([place[image_id] for image_id in rows["image_id"].to_pylist()]).combine_chunks()


def _give_back_memory() -> None:
    """Return to the machine what a failed attempt has freed.

    The allocator is set to keep all it ever had, but libraries map memory of their own (oneDNN its code): after an
    image that took all there was they could not, and the image's neighbours would fail. It takes some milliseconds, for
    images that fail alone.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def _fit(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of the schema; those that are not there are null."""
    columns = [
        rows[field.name].cast(field.type) if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=pa.schema([field.with_nullable(True) for field in schema]))


def _told(error: Exception) -> str:
    return masked(f"{type(error).__name__}: {error}")


def _task_table(task: dict[str, Any], rows: pa.Table | None, report: Report) -> pa.Table:
    report.add_retries()
    stream = None if rows is None else _to_stream(rows)
    columns = [[task["unit"]], [task["only"]], [task["version"]], pa.array([stream], pa.large_binary())]
    return pa.table([*columns, [json.dumps(vars(report))]], schema=TASK_SCHEMA)


def _to_stream(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue().to_pybytes()


def _from_stream(data: bytes) -> pa.Table:
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()
