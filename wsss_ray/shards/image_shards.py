"""Read image shards: Parquet files with one row per image, of which each row group is a unit.

A unit's digest covers its ids, bytes and tags. It is in the shard's footer and in the label file's name, so that labels
of other data never match."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from wsss_ray.classes import ClassSet
from wsss_ray.images.header import DEFAULT_MAX_PIXELS, LARGEST_MAX_PIXELS
from wsss_ray.shards.footers import (
    FOOTER_KEY,
    ShardError,
    check_file,
    damage_as_shard_error,
    footer_readers,
    read_footer,
)
from wsss_ray.shards.image_encoding import digest_column, digest_rows, report_path, shard_name
from wsss_ray.shards.row_checks import check_rows
from wsss_ray.shards.schemas import IMAGE_SCHEMA
from wsss_ray.shards.units import Unit
from wsss_ray.storage.json_files import read_json
from wsss_ray.storage.storage import Storage

REJECTED_FILE = "rejected.parquet"
_REMEDY = "Run the same wsss-ray shard command again: it replaces a damaged shard."
_FOOTER_KEYS = {"exif", "label_space", "classes", "has_truth", "row_groups"}
_SHARD_NAME = re.compile(r"shard-(\d{5,})-of-(\d{5,})\.parquet")


@dataclass(frozen=True, kw_only=True)
class ShardSet:
    """All image shards of a folder."""

    units: tuple[Unit, ...]
    label_space: str
    """Digest of the class names and ids that the tags and the truth use."""
    classes: str
    """Name of the class set they were made with."""
    has_truth: bool
    size: int = 0
    """Bytes of the files."""
    damaged: Mapping[str, str] = field(default_factory=dict)
    """Reason why a shard cannot be read, by file name; its units are known from the report of the shard job."""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over all units, for a run's identity."""
        lines = (f"{unit.name} {unit.digest} {unit.exif}\n" for unit in self.units)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def rows(self) -> int:
        """Number of images."""
        return sum(unit.rows for unit in self.units)


def read_shard_set(storage: Storage) -> ShardSet:
    """Read the footers of all image shards of a folder.

    Raises:
        ShardError: there is none, one of the numbered shards is missing, one is damaged and its report too, or they
            disagree about the classes.
    """
    files = {name: info for name, info in storage.list().items() if _SHARD_NAME.fullmatch(name)}
    names = list(files)
    if not names:
        raise ShardError(_no_shards(storage))
    totals = {match.group(2) for name in names if (match := _SHARD_NAME.fullmatch(name))}
    if len(totals) > 1:
        raise ShardError(
            f"{storage.uri} holds shards of different runs ({', '.join(f'of-{t}' for t in sorted(totals))}): "
            "make the shards again in an empty folder."
        )
    total = int(totals.pop())
    missing = sorted({shard_name(index, total) for index in range(total)} - set(names))
    if missing:
        raise ShardError(
            f"{storage.uri}: {len(missing)} of {total} shards are missing, the first is {missing[0]}. "
            "Run the same wsss-ray shard command again to finish them."
        )
    damaged: dict[str, str] = {}
    with ThreadPoolExecutor(footer_readers(storage)) as pool:
        footers = list(pool.map(lambda name: _read_image_footer(storage, name, damaged), names))
    spaces = {footer["label_space"] for footer in footers}
    if len(spaces) > 1:
        raise ShardError(f"{storage.uri}: its shards were made with different class sets; make them again with one.")
    units = tuple(unit for name, footer in zip(names, footers, strict=True) for unit in _units(name, footer))
    return ShardSet(
        units=units,
        label_space=spaces.pop(),
        classes=footers[0]["classes"],
        has_truth=any(footer["has_truth"] for footer in footers),
        size=sum(info.size for info in files.values()),
        damaged=dict(sorted(damaged.items())),
    )


def read_unit(
    storage: Storage,
    unit: Unit,
    *,
    columns: Sequence[str] | None = None,
    check: Literal["content", "footer"] = "content",
) -> pa.Table:
    """Read the rows of a unit, which must still be those that were listed.

    Args:
        storage: folder of the image shards.
        unit: which rows.
        columns: columns of IMAGE_SCHEMA to return; None: all.
        check: content: ids, bytes and tags are read, whatever the columns, and compared with the unit's digest. footer:
            nothing but the columns is read; the unit's digest is compared with that in the shard's footer.

    Raises:
        ShardError: the shard does not exist, is damaged, or is not the one that the unit was listed from, or a row
            claims more pixels than the shard's limit.
    """
    wanted = list(IMAGE_SCHEMA.names if columns is None else columns)
    needed = list(dict.fromkeys([*wanted, "image_id", "image", "tags"])) if check == "content" else wanted
    where = f"{storage.describe(unit.shard)}, row group {unit.row_group}"
    try:
        with (
            damage_as_shard_error(lambda reason: f"{where}: damaged: {reason}. {_REMEDY}"),
            storage.open(unit.shard) as file,
            pq.ParquetFile(file, page_checksum_verification=True) as parquet,
        ):
            rows = parquet.read_row_group(unit.row_group, columns=needed, use_threads=False).select(needed)
            rows.validate(full=True)
            footer = json.loads((parquet.metadata.metadata or {}).get(FOOTER_KEY, b"{}"))
            listed = [group["digest"] for group in footer.get("row_groups", [])]
            if check == "content":
                same = digest_rows(rows) == unit.digest
            else:
                same = unit.digest in listed[unit.row_group :][:1]
            digests = footer["row_groups"][unit.row_group].get("columns", {}) if same else {}
            changed = [name for name in needed if name in digests and digest_column(rows[name]) != digests[name]]
    except FileNotFoundError as error:
        raise ShardError(f"{where}: the shard was removed since the run began.") from error
    if not same or changed or rows.num_rows != unit.rows:
        raise ShardError(
            f"{where}: its content does not match its footer: the shard is damaged or was replaced during the run. "
            f"{_REMEDY}"
        )
    check_rows(rows, where, max_pixels=unit.max_pixels)
    return rows.select(wanted)


def check_label_space(shards: ShardSet, classes: ClassSet) -> None:
    """Refuse shards whose tags and truth mean other classes.

    Raises:
        ValueError: names both class sets and what to do.
    """
    if classes.label_space_digest != shards.label_space:
        raise ValueError(
            f"the shards were made with class set '{shards.classes}', whose names and ids are not those of "
            f"'{classes.name}'. Give --classes {shards.classes} (or one that shares its names and ids), or make the "
            f"shards again with --classes {classes.name}."
        )


def count_rejected(storage: Storage) -> int:
    """Return the number of images that were listed when the shards were made and became no row."""
    where = storage.describe(REJECTED_FILE)
    try:
        with (
            damage_as_shard_error(lambda reason: f"{where} is damaged: {reason}. Run wsss-ray shard again."),
            storage.open(REJECTED_FILE) as file,
        ):
            return int(pq.read_metadata(file).num_rows)
    except FileNotFoundError:
        return 0


def find_shard_damage(storage: Storage, name: str) -> str | None:
    """Return why an image shard has to be replaced; None where no byte has changed.

    A shard without a digest of its pages is read and compared with the digests of its units.
    """
    try:
        footer = check_file(storage, name, kind="images")
        if "pages_sha256" not in footer:
            for unit in _units(name, footer):
                read_unit(storage, unit)
    except (FileNotFoundError, ShardError) as error:
        return str(error)
    return None


def _units(name: str, footer: Mapping[str, Any]) -> list[Unit]:
    """Return the units of a shard; ShardError where the footer does not describe them."""
    with damage_as_shard_error(lambda reason: f"the footer of {name} is damaged: {reason}. {_REMEDY}"):
        return [
            Unit(
                shard=name,
                row_group=index,
                rows=int(group["rows"]),
                digest=str(group["digest"]),
                exif=footer["exif"],
                max_pixels=footer["max_pixels"],
            )
            for index, group in enumerate(footer["row_groups"])
        ]


def _read_image_footer(storage: Storage, name: str, damaged: dict[str, str]) -> dict[str, Any]:
    """Return the footer of a shard, from the report of the shard job where the shard is damaged."""
    try:
        footer = read_footer(storage, name, kind="images")
    except ShardError as error:
        try:
            footer = read_json(storage, report_path(name))["footer"]
            damaged[name] = str(error)
        except (FileNotFoundError, ValueError, LookupError):
            raise error from None
    if not footer.keys() >= _FOOTER_KEYS:
        raise ShardError(f"{storage.describe(name)} is damaged: its footer lacks entries. {_REMEDY}")
    limit = footer.setdefault("max_pixels", DEFAULT_MAX_PIXELS)
    if not (isinstance(limit, int) and 1 <= limit <= LARGEST_MAX_PIXELS):
        raise ShardError(
            f"{storage.describe(name)} allows images of {limit} pixels, but the largest limit is "
            f"{LARGEST_MAX_PIXELS}. Make it again with wsss-ray shard."
        )
    return footer


def _no_shards(storage: Storage) -> str:
    if storage.is_local and not Path(storage.uri).is_dir():
        return f"there is no folder {storage.uri}. Check the path, or make the shards with wsss-ray shard."
    names = list(storage.list())
    if any(name.lower().endswith((".jpg", ".jpeg", ".png", ".webp")) for name in names):
        return (
            f"{storage.uri} holds images, not image shards. Make the shards first, for example:\n"
            f"  wsss-ray shard --source folder --input {storage.uri} --tags TAGS.csv --output SHARDS\n"
            "and give SHARDS as --input (wsss-ray shard --help explains VOC, COCO and tags)."
        )
    return (
        f"{storage.uri} holds no image shards (shard-*-of-*.parquet). Check the path, or make them with "
        "wsss-ray shard (see its --help)."
    )
