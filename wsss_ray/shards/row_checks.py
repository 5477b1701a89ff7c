"""Checks of every row of a shard or label file that is read, whoever wrote the file."""

from __future__ import annotations

import re

import pyarrow as pa

from wsss_ray.shards.footers import ShardError

MAX_ID_BYTES = 200
_ID = re.compile(r"(?!\.)[A-Za-z0-9._-]+")


def check_image_id(image_id: str) -> str:
    """Return the id, or raise a ValueError: it becomes a file name, so its characters and length are limited."""
    if not _ID.fullmatch(image_id) or len(image_id.encode()) > MAX_ID_BYTES:
        raise ValueError(
            f"{image_id!r} is no image id: letters, digits, '.', '_' and '-' only, no leading dot, at most "
            f"{MAX_ID_BYTES} bytes."
        )
    return image_id


def check_rows(rows: pa.Table, where: str, *, max_pixels: int) -> None:
    """Refuse ids that could not become file names, and sizes above the limit, by which decoders take memory.

    Columns that were not read are not checked.

    Raises:
        ShardError: names the file and the image.
    """
    columns = set(rows.column_names)
    ids = rows["image_id"].to_pylist() if "image_id" in columns else [""] * rows.num_rows
    for image_id in ids if "image_id" in columns else ():
        try:
            check_image_id(image_id or "")
        except ValueError as error:
            raise ShardError(f"{where}: {error}") from error
    if {"height", "width"} <= columns:
        for image_id, height, width in zip(ids, rows["height"].to_pylist(), rows["width"].to_pylist(), strict=True):
            if height is None or width is None or height < 1 or width < 1 or height * width > max_pixels:
                raise ShardError(
                    f"{where}: image {image_id} claims {width} x {height} pixels (width x height), the limit is "
                    f"{max_pixels}. Make the shards again with wsss-ray shard (--max-pixels)."
                )
