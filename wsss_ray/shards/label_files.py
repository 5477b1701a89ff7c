"""Label files: one Parquet file per unit, with the same images in the same order."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wsss_ray.images.header import LARGEST_MAX_PIXELS
from wsss_ray.shards.footers import FOOTER_KEY, FORMAT_VERSION, damage_told, read_footer
from wsss_ray.shards.row_checks import check_rows
from wsss_ray.shards.schemas import LABEL_SCHEMA
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage


def encode_labels(rows: pa.Table, unit: Unit, counts: Mapping[str, Any]) -> bytes:
    """Parquet bytes of a label file: rows in LABEL_SCHEMA, in the unit's order.

    The footer holds the counts, and the ids of the images that have a label.
    """
    there = pc.is_valid(rows["label"])
    footer = {
        "kind": "labels",
        "format": FORMAT_VERSION,
        "unit": unit.name,
        "digest": unit.digest,
        "counts": counts,
        "labelled": rows["image_id"].filter(there).to_pylist(),
    }
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, LABEL_SCHEMA, compression="zstd", write_statistics=False) as writer:
        writer.write_table(rows.cast(LABEL_SCHEMA), row_group_size=max(rows.num_rows, 1))
        writer.add_key_value_metadata({FOOTER_KEY: json.dumps(footer, sort_keys=True)})
    return buffer.getvalue()


def read_labels(storage: Storage, path: str, *, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a label file, with these columns of LABEL_SCHEMA, or all.

    Raises:
        FileNotFoundError: it is not there.
        ShardError: it is no label file.
    """
    data = storage.read(path)
    where = storage.describe(path)
    with damage_told(lambda reason: f"{where} is not a label file: {reason}. Remove it and run again."):
        rows = pq.read_table(
            pa.BufferReader(data),
            columns=None if columns is None else list(columns),
            schema=LABEL_SCHEMA,
            use_threads=False,
        )
    check_rows(rows, storage.describe(path), max_pixels=LARGEST_MAX_PIXELS)
    return rows


def read_label_counts(storage: Storage, path: str) -> dict[str, Any]:
    """Counts in the footer of a label file, without its rows."""
    footer = read_footer(storage, path, kind="labels")
    return dict(footer["counts"])


def read_labelled_ids(storage: Storage, path: str) -> list[str]:
    """Ids of the images that have a label in a label file, in its order: without its rows, if it is no old one."""
    footer = read_footer(storage, path, kind="labels")
    if "labelled" in footer:
        return list(footer["labelled"])
    return [row["image_id"] for row in read_labels(storage, path).to_pylist() if row["label"] is not None]
