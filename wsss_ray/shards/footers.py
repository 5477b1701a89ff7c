"""What a shard or label file says of itself in its Parquet footer: read without its rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wsss_ray.storage.errors import StorageError
from wsss_ray.storage.storage import Storage

FORMAT_VERSION = 1
FOOTER_KEY = b"wsss_ray"
_TAIL_BYTES = 2**15
"""Read of a remote file's end at first: a label file's footer has some 10 kB, an image shard's some 100."""


class ShardError(ValueError):
    """A shard that cannot be used; the text names the file and what to do."""


@contextmanager
def damage_told(tell: Callable[[str], str]) -> Iterator[None]:
    """Around Arrow's reading of a Parquet file: what it says of a damaged one becomes a ShardError.

    Of a page that cannot be decompressed, or a footer that cannot be parsed, it raises a bare OSError.

    Args:
        tell: text of the error, which names the file, by Arrow's reason.

    Raises:
        ShardError: the file is damaged. Errors of the storage pass.
    """
    try:
        yield
    except (StorageError, FileNotFoundError):
        raise
    except (pa.ArrowException, OSError) as error:
        raise ShardError(tell(" ".join(str(error).split()))) from error


def read_footer(storage: Storage, path: str, *, kind: str) -> dict[str, Any]:
    """The footer of a file of this kind, "images" or "labels".

    Raises:
        FileNotFoundError: it is not there.
        ShardError: it is no such file.
    """
    where = storage.describe(path)
    with damage_told(lambda reason: f"{where} is truncated or no Parquet file: {reason}. Make it again."):
        metadata = _read_metadata(storage, path).metadata or {}
    if FOOTER_KEY not in metadata:
        raise ShardError(f"{where} is a Parquet file, but was not made by wsss_ray.")
    footer: dict[str, Any] = json.loads(metadata[FOOTER_KEY])
    if footer["kind"] != kind or footer["format"] != FORMAT_VERSION:
        raise ShardError(
            f"{where} holds {footer['kind']} in format {footer['format']}, not {kind} in format {FORMAT_VERSION}."
        )
    return footer


def footer_readers(storage: Storage) -> int:
    """How many footers to read at once: a store answers late, but many."""
    return 16 if storage.is_local else 64


def _read_metadata(storage: Storage, path: str) -> pq.FileMetaData:
    if storage.is_local:
        with storage.open(path):  # tells what is wrong with a file that cannot be read
            # Arrow reads a file by its name without the interpreter's lock: a run has thousands of footers
            return pq.read_metadata(storage.describe(path))
    tail = storage.read_end(path, _TAIL_BYTES)
    length = int.from_bytes(tail[-8:-4], "little") + 8  # the file ends with the footer, its length and the magic
    if tail.endswith(b"PAR1") and length > len(tail):
        tail = storage.read_end(path, length)
    return pq.read_metadata(pa.BufferReader(tail))
