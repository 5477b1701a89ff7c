"""Soft scores of a run: soft/<unit>.parquet beside labels/<unit>.parquet, probabilities in steps of 1/255.

One row per image, in the unit's order. Each class whose probability reaches the run's threshold at some pixel has a
map: an 8-bit gray PNG of the image's size whose values divided by 255 are the probabilities. Classes without a map are
below the threshold in the whole image. A failed image has no maps (null).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wsss_ray.images.label_png import decode_label, encode_label
from wsss_ray.shards.footers import ShardError, damage_as_shard_error
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage

MAPS_TYPE = pa.list_(pa.struct([("class_id", pa.int32()), ("probability", pa.large_binary())]))
SOFT_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("maps", MAPS_TYPE),
    ]
)


def soft_path(unit: Unit) -> str:
    """Return the path of the unit's soft scores below the run directory."""
    return f"soft/{unit.name}.parquet"


def encode_maps(class_ids: np.ndarray, scores: Iterable[np.ndarray]) -> list[dict[str, Any]]:
    """Return the `maps` of a row from (K,) class ids and K planes (H, W) uint8 of probabilities in 255ths."""
    return [
        {"class_id": int(class_id), "probability": encode_label(plane, palette=None)}
        for class_id, plane in zip(class_ids, scores, strict=True)
    ]


def encode_soft(rows: pa.Table) -> bytes:
    """Return the Parquet bytes of rows in SOFT_SCHEMA; the maps are already compressed."""
    buffer = io.BytesIO()
    pq.write_table(
        rows.cast(SOFT_SCHEMA),
        buffer,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    )
    return buffer.getvalue()


def read_soft(run: Storage, unit: Unit) -> pa.Table:
    """Return the rows in SOFT_SCHEMA of a unit of a run directory, in the unit's order.

    Raises:
        ShardError: the unit is not predicted yet, the run was made without --soft, or the file is damaged.
    """
    where = run.describe(soft_path(unit))
    try:
        data = run.read(soft_path(unit))
    except FileNotFoundError as error:
        raise ShardError(
            f"there is no {where}: the run was made without --soft, or the unit is not predicted yet. If it was lost, "
            f"remove {unit.label_path} there and run again."
        ) from error
    with damage_as_shard_error(
        lambda reason: f"{where} is damaged: {reason}. Remove it and {unit.label_path}, and run again."
    ):
        return pq.read_table(
            pa.BufferReader(data), schema=SOFT_SCHEMA, use_threads=False, page_checksum_verification=True
        )


def probabilities_of(row: Mapping[str, Any]) -> dict[int, np.ndarray]:
    """Return the (H, W) float32 probabilities, 0 to 1, by class id, of a row that has not failed."""
    size = row["height"] * row["width"]
    return {
        entry["class_id"]: decode_label(entry["probability"], max_pixels=size).astype(np.float32) / 255
        for entry in row["maps"]
    }
