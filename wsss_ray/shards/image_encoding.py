"""Write image shards: the bytes of a file, and the digests that identify its units."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from wsss_ray.images.header import DEFAULT_MAX_PIXELS
from wsss_ray.shards.footers import DIGESTS, FOOTER_KEY, FORMAT_VERSION, seal
from wsss_ray.shards.schemas import IMAGE_SCHEMA

_DIGESTED_COLUMNS = tuple(name for name in IMAGE_SCHEMA.names if name != "image")
"""Columns with a digest of their own, so that one column can be read and verified alone."""


def shard_name(index: int, total: int) -> str:
    """Return the file name of shard `index` (from 0) of `total`."""
    return f"shard-{index:05d}-of-{total:05d}.parquet"


def report_path(name: str) -> str:
    """Return the path of the report that the shard job keeps of a shard, by the shard's file name."""
    return f"reports/{name.removesuffix('.parquet')}.json"


def digest_rows(rows: pa.Table) -> str:
    """Return the SHA-256 (hex) over ids, encoded bytes and tags, in order."""
    digest = hashlib.sha256()
    for image_id, image, tags in zip(rows["image_id"], rows["image"], rows["tags"], strict=True):
        for part in (image_id.as_py().encode(), image.as_buffer(), json.dumps(tags.as_py()).encode()):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return digest.hexdigest()


def digest_column(column: pa.ChunkedArray) -> str:
    """Return a digest (32 hex digits) of a column's values, for columns that a unit's digest does not cover."""
    digest = hashlib.sha256()
    for value in column.to_pylist():
        part = value if isinstance(value, bytes) else json.dumps(value).encode()
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:32]


def encode_image_shard(
    groups: Iterable[pa.Table],
    *,
    exif: Literal["apply", "ignore"],
    label_space: str,
    classes: str,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> bytes:
    """Return the Parquet bytes of an image shard. The same rows give the same bytes.

    Args:
        groups: one unit each: a table in IMAGE_SCHEMA with at least one row.
        exif: whether readers turn the images by their EXIF orientation.
        label_space: digest of the class names and ids that tags and truth use.
        classes: name of the class set.
        max_pixels: most pixels of an image; later jobs refuse a larger one.
    """
    buffer = io.BytesIO()
    row_groups = []
    has_truth = False
    # The images are compressed already; without statistics and dictionaries the same rows give the same bytes.
    with pq.ParquetWriter(
        buffer,
        IMAGE_SCHEMA,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    ) as writer:
        for group in groups:
            rows = group.cast(IMAGE_SCHEMA).combine_chunks()
            assert rows.num_rows > 0, "a unit holds at least one image"
            writer.write_table(rows, row_group_size=rows.num_rows)
            columns = {name: digest_column(rows[name]) for name in _DIGESTED_COLUMNS}
            row_groups.append({"rows": rows.num_rows, "digest": digest_rows(rows), "columns": columns})
            has_truth = has_truth or rows["truth"].null_count < rows.num_rows
        footer = {
            "kind": "images",
            "format": FORMAT_VERSION,
            "exif": exif,
            "max_pixels": max_pixels,
            "label_space": label_space,
            "classes": classes,
            "has_truth": has_truth,
            "row_groups": row_groups,
            **DIGESTS,
        }
        writer.add_key_value_metadata({FOOTER_KEY: json.dumps(footer)})
    seal(buffer)
    return buffer.getvalue()
