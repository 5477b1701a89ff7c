"""Tag files of a folder of images: CSV or JSON lines.

CSV, UTF-8, with a header line; the columns `file` and `tags` are read, others are ignored. Several tags are separated
by `;` or `|`; an empty field is an image without a tag:

    file,tags
    pets/a.jpg,dog;person

JSON lines, one object per line; keys other than `file` and `tags` are ignored:

    {"file": "pets/a.jpg", "tags": ["dog", "person"]}

Files are named relative to the input's root, with forward slashes.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wsss_ray.config import StorageConfig
from wsss_ray.datasets.paths import plain_path, split_file

_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class ManifestEntry:
    """The tags of one file."""

    path: str
    """Path relative to the input's root."""
    tags: tuple[str, ...]
    """Tags as written."""
    where: str
    """File and line, for messages."""


def read_text(path: str, storage: StorageConfig, *, what: str) -> str:
    """Return the text of a UTF-8 file by local path or URI, without a byte order mark.

    Raises:
        ValueError: there is no such file, or it is not UTF-8; `what` names in the message what was expected.
    """
    data = read_bytes(path, storage, what=what)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}:{line}: not UTF-8 text: save {what} as UTF-8.") from error


def read_bytes(path: str, storage: StorageConfig, *, what: str) -> bytes:
    """Return the bytes of a file by local path or URI; ValueError, which names `what` was expected, without one."""
    root, name = split_file(path, storage)
    if root.is_local and Path(path).expanduser().is_dir():
        raise ValueError(f"{path} is a folder, not {what}.")
    try:
        return root.read(name)
    except FileNotFoundError:
        raise ValueError(f"there is no {what} at {path}.") from None


def read_manifest(path: str, storage: StorageConfig) -> list[ManifestEntry]:
    """Return all entries of a tag file, in its order.

    Raises:
        ValueError: the file is missing or malformed, or names a file twice or outside the input's root; the message has
            file and line.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".csv", ".jsonl", ".ndjson"):
        raise ValueError(
            f"{path}: a tag file is a .csv (columns file,tags) or a .jsonl "
            '({"file": "a.jpg", "tags": ["dog"]} per line).'
        )
    text = read_text(path, storage, what="tag file")
    entries = list(_read_csv(text, path) if suffix == ".csv" else _read_json_lines(text, path))
    if not entries:
        raise ValueError(f"{path}: the tag file lists no image.")
    _refuse_duplicates(entries)
    return entries


def _read_csv(text: str, source: str) -> Iterator[ManifestEntry]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        if header.count("file") != 1 or header.count("tags") != 1:
            raise ValueError(
                f"{source}:1: the header must be `file,tags` (comma-separated; several tags in one field are separated "
                f"by `;` or `|`), not {','.join(header)[:200]!r}."
            )
        file_column, tags_column = header.index("file"), header.index("tags")
        for row in reader:
            where = f"{source}:{reader.line_num}"
            if not row:
                continue
            if len(row) != len(header):
                raise ValueError(
                    f"{where}: {len(row)} fields, the header has {len(header)}: separate tags by `;` or `|`, and "
                    "quote a file name that has a comma."
                )
            tags = tuple(tag.strip() for tag in re.split(r"[;|]", row[tags_column]) if tag.strip())
            yield ManifestEntry(path=plain_path(row[file_column], where), tags=tags, where=where)
    except csv.Error as error:
        raise ValueError(f"{source}:{reader.line_num}: not valid CSV: {error}.") from error


def _read_json_lines(text: str, source: str) -> Iterator[ManifestEntry]:
    for number, line in enumerate(text.split("\n"), start=1):
        where = f"{source}:{number}"
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: not valid JSON: {error}.") from error
        if not (isinstance(record, dict) and isinstance(record.get("file"), str)):
            form = '{"file": "a.jpg", "tags": ["dog"]}'
            raise ValueError(f"{where}: not of the form {form}: {line.strip()[:100]}")  # noqa: TRY004
        tags = record.get("tags")
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise ValueError(f'{where}: "tags" must be a list of strings (an empty one for no tag).')
        yield ManifestEntry(path=plain_path(record["file"], where), tags=tuple(tags), where=where)


def _refuse_duplicates(entries: list[ManifestEntry]) -> None:
    first: dict[str, str] = {}
    twice = []
    for entry in entries:
        if entry.path in first:
            twice.append(f"  {entry.path}: {first[entry.path]} and {entry.where}")
        else:
            first[entry.path] = entry.where
    if twice:
        more = f"\n  and {len(twice) - _SHOWN} more" if len(twice) > _SHOWN else ""
        raise ValueError("files listed twice (join their tags in one line):\n" + "\n".join(twice[:_SHOWN]) + more)
