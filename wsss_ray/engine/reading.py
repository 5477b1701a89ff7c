"""The engine's first step: read a unit's encoded images from storage."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.actor import ActorHandle

from wsss_ray.engine import logs
from wsss_ray.engine.ledger import DEATHS_BEFORE_GIVING_UP, AttemptHistory
from wsss_ray.engine.meter import Meter
from wsss_ray.engine.task import UnitReport, describe_error
from wsss_ray.shards.footers import ShardError
from wsss_ray.shards.image_shards import read_unit
from wsss_ray.shards.schemas import READ_COLUMNS
from wsss_ray.shards.units import Unit
from wsss_ray.storage.redaction import masked
from wsss_ray.storage.storage import Storage

logger = logging.getLogger(__name__)


def read_task(batch: pa.Table, images: Storage, ledger: ActorHandle, run: str) -> pa.Table:
    """Read a unit and check it against its digest.

    A unit that cannot be read, or that kills each process that tries, is passed on with the reason instead of its rows.

    Args:
        batch: one UnitTask as JSON.
        images: folder of the image shards.
        ledger: the Ledger actor.
        run: part of the unit's name in the ledger, as for UnitWorker.
    """
    logs.configure()
    task = json.loads(batch["task"][0].as_py())
    unit = Unit.from_json(task["unit"])
    meter = Meter()
    report = UnitReport()
    with logs.at(stage="read", unit=unit.name):
        try:
            with _recorded_reading(ledger, f"{run} read", images, unit), meter("read"):
                rows = read_unit(images, unit, columns=READ_COLUMNS)
        except ShardError as error:
            report.problem = masked(str(error))
            logger.warning("left out: %s", error)
            return report.to_table(task, None)
        except Exception as error:  # noqa: BLE001 - the driver ends the run with it
            report.fatal = describe_error(error)
            logs.failure("cannot be read", error)
            return report.to_table(task, None)
    if task["only"] is not None:
        rows = rows.filter(pc.is_in(rows["image_id"], pa.array(task["only"], pa.string())))
    report.images = rows.num_rows
    report.read_at = time.time()
    report.add(meter.seconds)
    rows = rows.append_column("error", pa.nulls(rows.num_rows, pa.string()))
    return report.to_table(task, rows)


@contextmanager
def _recorded_reading(ledger: ActorHandle, stage: str, images: Storage, unit: Unit) -> Iterator[None]:
    """Record the attempt in the ledger; ShardError for a unit whose reading killed too many processes."""
    history = cast("AttemptHistory", ray.get(ledger.history.remote(stage, unit.name)))
    if history.deaths >= DEATHS_BEFORE_GIVING_UP:
        where = f"{images.describe(unit.shard)}, row group {unit.row_group}"
        raise ShardError(
            f"{where}: {history.deaths} processes died while reading it: too little memory for a unit, or a damaged "
            "file that crashes its reader. Write this shard again, with fewer --images-per-unit."
        )
    ray.get(ledger.begin.remote(stage, unit.name, ray.get_runtime_context().get_node_id()))
    try:
        yield
    finally:
        ledger.end.remote(stage, unit.name, finished=True)
