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
from wsss_ray.shards.footers import (
    DIGESTS,
    FOOTER_KEY,
    FORMAT_VERSION,
    ShardError,
    check_pages,
    damage_as_shard_error,
    parse_footer,
    read_footer,
    seal,
)
from wsss_ray.shards.row_checks import check_rows
from wsss_ray.shards.schemas import LABEL_SCHEMA
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage


def encode_labels(rows: pa.Table, unit: Unit, counts: Mapping[str, Any]) -> bytes:
    """Return the Parquet bytes of a label file.

    The footer holds the counts, and the ids of the images that have a label.

    Args:
        rows: columns of LABEL_SCHEMA and any others, in the unit's order.
        unit: the images.
        counts: see `labels.sink.count_rows`.
    """
    labelled = rows["image_id"].filter(pc.is_valid(rows["label"])).to_pylist()
    footer = {
        "kind": "labels",
        "format": FORMAT_VERSION,
        "unit": unit.name,
        "digest": unit.digest,
        "counts": counts,
        "labelled": labelled,
        **DIGESTS,
    }
    buffer = io.BytesIO()
    rows = _in_schema(rows)
    with pq.ParquetWriter(
        buffer, rows.schema, compression="zstd", write_statistics=False, write_page_checksum=True
    ) as writer:
        writer.write_table(rows, row_group_size=max(rows.num_rows, 1))
        writer.add_key_value_metadata({FOOTER_KEY: json.dumps(footer, sort_keys=True)})
    seal(buffer)
    return buffer.getvalue()


def _in_schema(rows: pa.Table) -> pa.Table:
    """Return the rows with the columns of LABEL_SCHEMA first, then the others."""
    extra = [field.with_nullable(True) for field in rows.schema if field.name not in LABEL_SCHEMA.names]
    schema = pa.schema([*LABEL_SCHEMA, *extra])
    return rows.select(schema.names).cast(schema)


def read_labels(storage: Storage, unit: Unit, *, columns: Sequence[str] | None = None, extra: bool = False) -> pa.Table:
    """Read the rows of a unit's label file, and compare every byte of it with its digests.

    Args:
        storage: run directory.
        unit: the images.
        columns: columns of LABEL_SCHEMA to return; None: all.
        extra: return all columns of the file, also those that the run added.

    Raises:
        FileNotFoundError: the file does not exist.
        ShardError: it is damaged, or holds the labels of other images.
    """
    data, _ = _read_verified(storage, unit)
    name = storage.describe(unit.label_path)
    with damage_as_shard_error(lambda reason: f"{name} is damaged: {reason}. Remove it and run wsss-ray label again."):
        rows = pq.read_table(
            pa.BufferReader(data),
            columns=None if columns is None else list(columns),
            schema=None if extra else LABEL_SCHEMA,
            use_threads=False,
            page_checksum_verification=True,
        )
        rows = _in_schema(rows) if extra else rows
        rows.validate(full=True)  # text of files without digests
    if rows.num_rows != unit.rows:
        raise ShardError(f"{name} is damaged: it has {rows.num_rows} rows, its unit {unit.rows}.")
    check_rows(rows, name, max_pixels=LARGEST_MAX_PIXELS)
    return rows


def find_damage(storage: Storage, unit: Unit) -> str | None:
    """Return why a unit's label file cannot be used; None where no byte has changed."""
    try:
        _, footer = _read_verified(storage, unit)
        if "pages_sha256" not in footer:  # an old file
            read_labels(storage, unit)
    except ShardError as error:
        return str(error)
    return None


def read_label_counts(storage: Storage, unit: Unit) -> dict[str, Any]:
    """Read the counts in the footer of a unit's label file, without its rows. Raises as `read_labels`."""
    return dict(_read_footer(storage, unit)["counts"])


def read_labelled_ids(storage: Storage, unit: Unit) -> list[str]:
    """Read the ids of the images that have a label in a unit's label file, in order. Raises as `read_labels`.

    The rows are read only where an old footer does not hold the ids.
    """
    footer = _read_footer(storage, unit)
    if "labelled" in footer:
        return list(footer["labelled"])
    rows = read_labels(storage, unit, columns=["image_id", "label"])
    return list(rows["image_id"].filter(pc.is_valid(rows["label"])).to_pylist())


def _read_verified(storage: Storage, unit: Unit) -> tuple[bytes, dict[str, Any]]:
    """Return the bytes of a unit's label file and its footer, compared with the digests and the unit."""
    data = storage.read(unit.label_path)
    name = storage.describe(unit.label_path)
    footer = parse_footer(data, name, kind="labels")
    _check_unit(footer, unit, name)
    check_pages(data, footer, name, kind="labels")
    return data, footer


def _read_footer(storage: Storage, unit: Unit) -> dict[str, Any]:
    footer = read_footer(storage, unit.label_path, kind="labels")
    _check_unit(footer, unit, storage.describe(unit.label_path))
    return footer


def _check_unit(footer: Mapping[str, Any], unit: Unit, name: str) -> None:
    if (footer.get("unit"), footer.get("digest")) != (unit.name, unit.digest):
        raise ShardError(
            f"{name} holds the labels of {footer.get('unit')!r}, not those of its unit. Run the same wsss-ray label "
            "(or wsss-ray predict) command again: it replaces such a label file."
        )
    counts = footer.get("counts")
    if not isinstance(counts, Mapping) or not all(isinstance(value, int | Mapping) for value in counts.values()):
        raise ShardError(f"{name} is damaged: its footer holds no counts. Remove it and run wsss-ray label again.")
