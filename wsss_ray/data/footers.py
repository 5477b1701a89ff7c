"""What a shard or label file says of itself in its Parquet footer: read without its rows."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wsss_ray.data.storage import Storage

FORMAT_VERSION = 1
FOOTER_KEY = b"wsss_ray"


class ShardError(ValueError):
    """A shard that cannot be used; the text names the file and what to do."""


def read_footer(storage: Storage, path: str, *, kind: str) -> dict[str, Any]:
    """The footer of a file of this kind, "images" or "labels".

    Raises:
        FileNotFoundError: it is not there.
        ShardError: it is no such file.
    """
    where = storage.describe(path)
    try:
        with storage.open(path) as file:
            # Arrow reads a local file by its name without the interpreter's lock: a run has thousands of footers
            metadata = pq.read_metadata(where if storage.is_local else file).metadata or {}
    except pa.ArrowException as error:
        raise ShardError(f"{where} is truncated or no Parquet file: {error}. Make it again.") from error
    if FOOTER_KEY not in metadata:
        raise ShardError(f"{where} is a Parquet file, but was not made by wsss_ray.")
    footer: dict[str, Any] = json.loads(metadata[FOOTER_KEY])
    if footer["kind"] != kind or footer["format"] != FORMAT_VERSION:
        raise ShardError(
            f"{where} holds {footer['kind']} in format {footer['format']}, not {kind} in format {FORMAT_VERSION}."
        )
    return footer
