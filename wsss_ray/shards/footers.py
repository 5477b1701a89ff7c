"""Footers of image shards and label files: entries that describe a Parquet file, and the digests that show damage.

A file of wsss_ray holds a digest of its pages and one of its footer, both in the footer. Files that were written
before these digests existed are read without them.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
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
"""Bytes to read first from a file's end: a label file's footer has some 10 kB, an image shard's some 100."""
_END_BYTES = 8
"""A Parquet file ends with the length of its footer and the magic bytes PAR1."""
_CHUNK_BYTES = 2**23

_UNKNOWN = "0" * 64
DIGESTS = {"pages_sha256": _UNKNOWN, "footer_sha256": _UNKNOWN}
"""Entries of the footer that `seal` fills in."""
_PAGES_DIGEST, _FOOTER_DIGEST = (re.compile(rb'"%s": "([0-9a-f]{64})"' % key.encode()) for key in DIGESTS)


class ShardError(ValueError):
    """A shard or label file that cannot be used; the text names the file and what to do."""


@contextmanager
def damage_as_shard_error(text: Callable[[str], str]) -> Iterator[None]:
    """Raise a ShardError for any exception of a library on the content of a damaged Parquet file.

    Args:
        text: returns the error's text, which names the file, given the library's reason.

    Raises:
        ShardError: the file is damaged. Errors of the storage are raised as they are.
    """
    try:
        yield
    except (StorageError, FileNotFoundError, ShardError):
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split()).rstrip(".")
        raise ShardError(text(reason or type(error).__name__)) from error


def seal(file: io.BytesIO) -> None:
    """Fill in the digests of a Parquet file whose footer holds DIGESTS, in place."""
    with file.getbuffer() as data:
        start = len(data) - _END_BYTES - _footer_length(data[-_END_BYTES:])
        footer = data[start:-_END_BYTES]
        for pattern in (_PAGES_DIGEST, _FOOTER_DIGEST):
            matches = list(pattern.finditer(footer))
            assert len(matches) == 1, "the footer holds each digest once"
            content = data[:start] if pattern is _PAGES_DIGEST else footer
            footer[slice(*matches[0].span(1))] = hashlib.sha256(content).hexdigest().encode()


def read_footer(storage: Storage, path: str, *, kind: str) -> dict[str, Any]:
    """Return the footer of a file of this kind, "images" or "labels".

    Raises:
        FileNotFoundError: the file does not exist.
        ShardError: it is damaged, or no such file.
    """
    tail = storage.read_end(path, _TAIL_BYTES)
    length = _footer_length(tail[-_END_BYTES:]) + _END_BYTES
    if tail.endswith(b"PAR1") and length > len(tail):
        tail = storage.read_end(path, length)
    return parse_footer(tail, storage.describe(path), kind=kind)


def parse_footer(data: bytes, name: str, *, kind: str) -> dict[str, Any]:
    """Return the footer of a file of this kind.

    Args:
        data: the file's bytes, or as many from its end as hold the footer.
        name: what the file is called in the error.
        kind: "images" or "labels".

    Raises:
        ShardError: the file is damaged, or no such file.
    """
    footer = _footer_bytes(data)
    stated = _FOOTER_DIGEST.search(footer) if data.endswith(b"PAR1") else None
    if stated is not None:
        blank = b"".join([footer[: stated.start(1)], _UNKNOWN.encode(), footer[stated.end(1) :]])
        if hashlib.sha256(blank).hexdigest().encode() != stated.group(1):
            raise ShardError(f"{name} is damaged: its footer does not match its own digest. {_REMEDY[kind]}")
    with damage_as_shard_error(lambda reason: f"{name} is truncated or no Parquet file: {reason}. {_REMEDY[kind]}"):
        metadata = pq.read_metadata(pa.BufferReader(data)).metadata or {}
        if FOOTER_KEY not in metadata:
            raise ShardError(f"{name} is a Parquet file, but was not made by wsss_ray.")
        content = dict(json.loads(metadata[FOOTER_KEY]))
        found = content["kind"], content["format"]
    if found != (kind, FORMAT_VERSION):
        raise ShardError(f"{name} holds {found[0]} in format {found[1]}, not {kind} in format {FORMAT_VERSION}.")
    return content


def check_pages(data: bytes, footer: dict[str, Any], name: str, *, kind: str) -> None:
    """Raise a ShardError unless the pages of a whole file are those that its footer was written for."""
    pages = memoryview(data)[: len(data) - _END_BYTES - len(_footer_bytes(data))]
    _compare(hashlib.sha256(pages).hexdigest(), footer, name, kind=kind)


def check_file(storage: Storage, path: str, *, kind: str) -> dict[str, Any]:
    """Return the footer of a large file, every byte of which is compared with its digests.

    Raises:
        FileNotFoundError: the file does not exist.
        ShardError: it is damaged, or no such file.
    """
    footer = read_footer(storage, path, kind=kind)
    if "pages_sha256" not in footer:
        return footer
    digest = hashlib.sha256()
    with storage.open(path) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(size - _END_BYTES)
        left = size - _END_BYTES - _footer_length(file.read(_END_BYTES))
        file.seek(0)
        while left > 0 and (chunk := file.read(min(left, _CHUNK_BYTES))):
            digest.update(chunk)
            left -= len(chunk)
    _compare(digest.hexdigest(), footer, storage.describe(path), kind=kind)
    return footer


def footer_readers(storage: Storage) -> int:
    """Return how many footers to read at once: a store answers slowly, but many at once."""
    return 16 if storage.is_local else 64


_REMEDY = {
    "images": "Run the same wsss-ray shard command again: it replaces a damaged shard.",
    "labels": "Run the same wsss-ray label (or wsss-ray predict) command again: it replaces a damaged label file.",
}


def _compare(digest: str, footer: dict[str, Any], name: str, *, kind: str) -> None:
    if footer.get("pages_sha256", digest) != digest:
        raise ShardError(f"{name} is damaged: its content does not match the digest in its footer. {_REMEDY[kind]}")


def _footer_length(end: bytes | memoryview) -> int:
    return int.from_bytes(end[:4], "little") if len(end) == _END_BYTES else 0


def _footer_bytes(data: bytes) -> bytes:
    end = len(data) - _END_BYTES
    return data[max(0, end - _footer_length(data[-_END_BYTES:])) : max(0, end)]
