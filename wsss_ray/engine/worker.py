"""The actors of the pools: run a stage on a unit, isolate images that crash the process, commit finished units."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import time
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.actor import ActorHandle

from wsss_ray.engine import logs
from wsss_ray.engine.gate import Gate
from wsss_ray.engine.ledger import AttemptHistory
from wsss_ray.engine.meter import Meter
from wsss_ray.engine.stage import Sink, Stage, StageSpec, WorkerLost
from wsss_ray.engine.task import UnitReport, describe_error, rows_from_stream
from wsss_ray.engine.telemetry import WorkerMetrics
from wsss_ray.shards.units import Unit

logger = logging.getLogger(__name__)


class UnitWorker:
    """An actor of a pool, which runs one stage on units."""

    def __init__(self, spec: StageSpec, ledger: ActorHandle, run: str, sink: Sink | None) -> None:
        """Create the stage (load its models).

        Args:
            spec: the stage.
            ledger: the Ledger actor.
            run: name of the run, which keeps its entries in the ledger apart from another run's.
            sink: commits the unit after this stage; None where another stage follows.
        """
        logs.configure()
        self._name = spec.name
        self._recorded_as = spec.recorded_as(run)
        self._metrics = WorkerMetrics(spec.name, spec.device_memory)
        self._ledger = ledger
        self._sink = sink
        self._gpu = spec.gpu
        self._gate = Gate()
        self._node = ray.get_runtime_context().get_node_id()
        self._idle_since = time.perf_counter()
        self._cannot_start: str | None = None
        try:
            self._stage: Stage = _create(spec)
        except Exception as error:  # noqa: BLE001 - the first unit reports it: Ray would print it again and again
            self._cannot_start = f"{self._name}: {describe_error(error)}"
            logs.failure("cannot start", error, expected=(OSError, ValueError))
        else:
            ledger.note_loaded.remote(self._recorded_as)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Run the stage on one unit and pass it on, or commit it."""
        task = batch.to_pylist()[0]
        report = UnitReport.from_json(task["report"])
        report.fatal = report.fatal or self._cannot_start
        if report.problem is not None or report.fatal is not None:
            return report.to_table(task, None)
        with logs.at(stage=self._name, unit=Unit.from_json(task["unit"]).name):
            try:
                rows = self._work(task, report)
            except Exception as error:  # noqa: BLE001 - what an image raises is caught before
                report.fatal = f"{self._name}: {describe_error(error)}"
                logs.failure("cannot continue", error)
                rows = None
        return report.to_table(task, rows)

    def _work(self, task: dict[str, Any], report: UnitReport) -> pa.Table | None:
        """Run and commit; return the rows for the next stage, None after the last."""
        unit = Unit.from_json(task["unit"])
        history = cast("AttemptHistory", ray.get(self._ledger.history.remote(self._recorded_as, unit.name)))
        if (
            history.retried
            and self._sink
            and task["version"] is None
            and (counts := self._sink.counts(unit)) is not None
        ):
            report.counts = dict(counts)
            return None
        rows = rows_from_stream(task["rows"])
        meter = Meter(on_images=lambda images: self._note_images(unit, images))
        self._metrics.arrived(report.read_at)
        try:
            if history.isolate:
                logger.warning("two processes died at this unit: running its images one by one, alone")
                with self._gate.alone():
                    rows = self._one_by_one(unit, rows, history, meter)
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
            logger.exception("this process ends; Ray starts another")
            os._exit(1)
        ray.get(self._ledger.end.remote(self._recorded_as, unit.name, finished=True))
        self._metrics.worked(meter.seconds)
        report.add(meter.seconds)
        report.read_at = time.time()  # from now on it waits for the next stage
        return None if self._sink else rows

    def _begin(self, unit: Unit, image: str | None = None) -> None:
        ray.get(self._ledger.begin.remote(self._recorded_as, unit.name, self._node, image))

    def _note_images(self, unit: Unit, images: int) -> None:
        self._ledger.note_images.remote(self._recorded_as, unit.name, images)

    def _commit(self, unit: Unit, task: dict[str, Any], rows: pa.Table, report: UnitReport, meter: Meter) -> None:
        """Record this stage's GPU, and write the unit where this stage is the last."""
        if self._gpu is not None and (name := self._gpu()) is not None and name not in report.gpus:
            report.gpus.append(name)
        if self._sink is not None:
            with meter("write"):
                report.counts = dict(self._sink.commit(unit, rows, version=task["version"], gpus=report.gpus))
            self._metrics.committed(rows, report.counts)
            for image_id, error in zip(rows["image_id"].to_pylist(), rows["error"].to_pylist(), strict=True):
                if error is not None:
                    logger.warning("failed: %s", error, extra={"image": image_id})

    def _together(self, rows: pa.Table, meter: Meter) -> pa.Table:
        """Run the stage on all rows that have not failed; image by image where that raises."""
        all_good = rows["error"].null_count == rows.num_rows
        good = rows if all_good else rows.filter(pc.is_null(rows["error"]))  # which copies the images
        if good.num_rows == 0:
            return self._join(rows, [])
        try:
            return self._join(rows, [self._run(good, meter)])
        except Exception as error:  # noqa: BLE001 - any exception that an image causes in a library fails that image
            logger.warning("%s: running the images one by one", describe_error(error))
        _return_memory()
        meter.images = 0
        return self._join(rows, [self._run_alone(good.slice(i, 1), meter) for i in range(good.num_rows)])

    def _one_by_one(self, unit: Unit, rows: pa.Table, history: AttemptHistory, meter: Meter) -> pa.Table:
        """Run each image alone, its id recorded before it runs; fail quarantined ones without running them."""
        done = []
        for index in range(rows.num_rows):
            row = rows.slice(index, 1)
            image_id = row["image_id"][0].as_py()
            if row["error"][0].is_valid:
                continue
            if image_id in history.quarantined:
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
        except Exception as error:  # noqa: BLE001 - as in _together
            reason = " ".join(describe_error(error).split())[:300]
        _return_memory()  # which the error's frames held until here
        return self._failed(row, reason)

    def _failed(self, row: pa.Table, reason: str) -> pa.Table:
        index = row.schema.get_field_index("error")
        return row.set_column(index, "error", pa.array([f"{self._name}: {reason}"]))

    def _join(self, rows: pa.Table, results: list[pa.Table]) -> pa.Table:
        """Return the unit's rows in order, in the stage's columns: its results and the images that failed before."""
        schema = self._stage.output_schema
        failed = rows.filter(pc.is_valid(rows["error"]))
        joined = pa.concat_tables([_fit(part, schema) for part in (*results, failed)])
        position = {image_id: i for i, image_id in enumerate(joined["image_id"].to_pylist())}
        return joined.take([position[image_id] for image_id in rows["image_id"].to_pylist()]).combine_chunks()


def _create(spec: StageSpec) -> Stage:
    """Create a stage, and exclude the half a million objects of its packages from later garbage collections."""
    gc.disable()
    try:
        stage = spec.make()
    finally:
        gc.enable()
    gc.freeze()
    return stage


def _return_memory() -> None:
    """Return to the machine the memory that a failed attempt has freed.

    The allocator keeps all memory that it ever had. After an image that took all memory, libraries that map memory of
    their own (oneDNN maps its code) would fail for the next images too. This takes some milliseconds, and runs only
    for images that fail alone.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def _fit(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the columns of the schema; missing ones are null."""
    columns = [
        rows[field.name].cast(field.type) if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=pa.schema([field.with_nullable(True) for field in schema]))
