"""Sources of label maps: the label files of a run, or a folder of PNGs named by image id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, Protocol

import pyarrow.parquet as pq

from wsss_ray.engine.run_directory import RUN_FILE
from wsss_ray.images.header import DEFAULT_MAX_FILE_BYTES
from wsss_ray.labels.selection import nothing_named
from wsss_ray.shards.footers import ShardError, damage_as_shard_error
from wsss_ray.shards.image_shards import ShardSet
from wsss_ray.shards.instance import Instance
from wsss_ray.shards.label_files import read_labels
from wsss_ray.shards.label_row import LabelRow
from wsss_ray.shards.units import Unit
from wsss_ray.storage.errors import StorageError
from wsss_ray.storage.storage import Storage

_READERS = 8
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class LabelFile:
    """Label of one image from a source: a PNG, or the reason why it cannot be used, or neither."""

    png: bytes | None = None
    problem: str | None = None
    instances: tuple[Instance, ...] | None = None
    """None where they are not known, or were not read."""
    damage: str | None = None
    """Why the whole label file of the image's unit cannot be used."""


class LabelSource(Protocol):
    """Label PNGs by unit. It is pickled to the tasks."""

    def read(self, unit: Unit, image_ids: Sequence[str], chosen: Sequence[int]) -> list[LabelFile]:
        """Return the labels of some images of a unit.

        Args:
            unit: the images.
            image_ids: all ids of the unit.
            chosen: indices of the wanted images in `image_ids`, at least one.
        """


@dataclass(frozen=True, kw_only=True)
class RunLabels:
    """The label files of a run directory, one per unit."""

    storage: Storage
    """Run directory."""
    files: frozenset[str]
    """Paths of the units' label files that exist."""
    instances: bool = False
    """Whether to read the rows' instances, too."""

    def read(self, unit: Unit, image_ids: Sequence[str], chosen: Sequence[int]) -> list[LabelFile]:
        """Return the rows of the unit's label file; a damaged file fails all its images."""
        if unit.label_path not in self.files:
            return [LabelFile()] * len(chosen)
        columns = ["image_id", "height", "width", "label", "status", "error"]
        columns += ["instances"] if self.instances else []
        try:
            rows = read_labels(self.storage, unit, columns=columns)
        except FileNotFoundError as error:
            raise StorageError(
                f"{self.storage.describe(unit.label_path)} was listed when the job began, and does not exist now. On a "
                "cluster the labels must be on storage that every node sees under the same path (or s3://)."
            ) from error
        except ShardError as error:
            return [LabelFile(problem=f"label file: {error}", damage=str(error))] * len(chosen)
        assert rows["image_id"].to_pylist() == list(image_ids), "a label file belongs to its unit by digest"
        return [_label_file(row) for row in rows.take(chosen).to_pylist()]


def _label_file(row: Mapping[str, Any]) -> LabelFile:
    try:
        label = LabelRow.from_row(row)
    except ShardError as error:
        return LabelFile(problem=f"label row: {error}")
    if label.failed:
        return LabelFile(problem=f"labelling: {label.error or 'failed'}")
    return LabelFile(png=label.label, instances=label.instances)


@dataclass(frozen=True, kw_only=True)
class PngFolder:
    """A folder of `<image id>.png`, or `.PNG`."""

    storage: Storage
    suffixes: tuple[str, ...] = (".png",)
    """Endings that its files have, in the order in which they are tried."""

    def read(self, unit: Unit, image_ids: Sequence[str], chosen: Sequence[int]) -> list[LabelFile]:
        """Return the images' PNGs, whatever their unit."""
        del unit
        with ThreadPoolExecutor(min(_READERS, len(chosen))) as pool:
            return list(pool.map(self._read, [image_ids[index] for index in chosen]))

    def _read(self, image_id: str) -> LabelFile:
        for name in (f"{image_id}{suffix}" for suffix in self.suffixes):
            info = self.storage.info(name)
            if info is not None and info.size > DEFAULT_MAX_FILE_BYTES:
                where, limit = self.storage.describe(name), DEFAULT_MAX_FILE_BYTES
                return LabelFile(problem=f"too large: {where} has {info.size} bytes, the limit is {limit}")
            if info is not None:
                with suppress(FileNotFoundError):  # removed meanwhile
                    return LabelFile(png=self.storage.read(name))
        return LabelFile()

    def names(self) -> list[str]:
        """Return the ids that its files are named by, in order."""
        return [PurePosixPath(name).stem for name in self.storage.list() if name.endswith(self.suffixes)]


def find_labels(storage: Storage, shards: ShardSet, *, instances: bool) -> LabelSource:
    """Return the source of labels that a folder holds.

    Args:
        storage: run directory, or folder of PNGs.
        shards: the images.
        instances: whether to read the instances of label files, too.

    Raises:
        ValueError: it holds none, or those of other shards; the text says what it holds and what to give.
    """
    return find_run_labels(storage, shards, instances=instances) or find_pngs(storage, what="labels")


def find_run_labels(storage: Storage, shards: ShardSet, *, instances: bool = False) -> RunLabels | None:
    """Return the label files of a run directory; None where it holds none.

    Raises:
        ValueError: they belong to other image shards.
    """
    files = frozenset(f"labels/{name}" for name in storage.list("labels") if name.endswith(".parquet"))
    if not files:
        return None
    ours = files & {unit.label_path for unit in shards.units}
    if not ours:
        raise ValueError(
            f"none of the {len(files)} label files in {storage.describe('labels')} belongs to these image shards: they "
            "are labels of other images, or the shards were replaced by others. Give the shards that were "
            "labelled as --images, or label these."
        )
    return RunLabels(storage=storage, files=ours, instances=instances)


def find_pngs(storage: Storage, *, what: str) -> PngFolder:
    """Return a folder of PNGs; ValueError if it holds none. `what` they are, for the message."""
    names = list(storage.list())
    suffixes = sorted({name[-4:] for name in names if name.lower().endswith(".png")}, reverse=True)
    if suffixes:
        return PngFolder(storage=storage, suffixes=tuple(suffixes))
    if below := _pngs_below(storage):
        found = f"its PNGs are in folders below: give one of them ({', '.join(below)})"
    elif not names:
        found = "it is empty or does not exist"
    elif any(name.startswith("shard-") and name.endswith(".parquet") for name in names):
        found = "it holds Parquet files: of a run give the directory above `labels`, not that folder"
    else:
        found = f"it holds {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
    if what == "labels":
        what = "labels: neither label files of a run nor PNGs named by image id"
    raise ValueError(f"{storage.uri} has no {what}; {found}.{_runs_below(storage)}")


def nothing_matches(folder: PngFolder, image_id: str, *, what: str) -> str:
    """Return the message for a folder whose names match no image."""
    names = folder.names()
    example = names[0] if names else "none"
    return (
        f"no file of {folder.storage.uri} is named by an image id: an id is {image_id!r}, a file {example!r} "
        f"({len(names):,} PNGs). Name the {what} <image id>.png.{_runs_below(folder.storage)}"
    )


def _pngs_below(storage: Storage) -> list[str]:
    """Return the first folders directly below that hold PNGs."""
    folders = (name for name in storage.folders() if any(file.lower().endswith(".png") for file in storage.list(name)))
    return [storage.describe(name) for name in islice(folders, _SHOWN)]


def _runs_below(storage: Storage) -> str:
    """Return a question about the run directories directly below a folder; empty without one."""
    runs = [name for name in storage.folders() if storage.exists(f"{name}/{RUN_FILE}")]
    return f" Did you mean {' or '.join(storage.describe(name) for name in runs[:_SHOWN])}?" if runs else ""


def check_names(
    images: Storage, shards: ShardSet, *, subset: frozenset[str] | None, truths: PngFolder | None, labels: LabelSource
) -> None:
    """Refuse a list or folders that name no image: a score over none of them would look like a real one.

    The shards' ids are read until each has named one, which takes one shard in the usual case.

    Raises:
        ValueError: one names no image; the text has an id and a name.
        ShardError: a shard's ids cannot be read.
    """
    folders = {"truth": truths, "labels": labels}
    unmatched = {
        what: (folder, set(folder.names())) for what, folder in folders.items() if isinstance(folder, PngFolder)
    }
    first = None
    for _, ids in ids_by_shard(images, shards) if unmatched or subset is not None else ():
        chosen = ids if subset is None else [image_id for image_id in ids if image_id in subset]
        first = first or next(iter(chosen), None)
        unmatched = {what: (folder, names) for what, (folder, names) in unmatched.items() if names.isdisjoint(chosen)}
        if first is not None and not unmatched:
            return
    if subset is not None and first is None:
        raise ValueError(nothing_named("--subset", subset))
    for what, (folder, _) in unmatched.items():
        assert first is not None, "shards hold images"
        raise ValueError(nothing_matches(folder, first, what=what))


def ids_by_shard(images: Storage, shards: ShardSet) -> Iterator[tuple[str, list[str]]]:
    """Iterate over the shards: file name and image ids. Raises ShardError where they cannot be read."""
    for name in dict.fromkeys(unit.shard for unit in shards.units):
        where = images.describe(name)

        def text(reason: object, where: str = where) -> str:
            return f"{where}: its ids cannot be read: {reason}. Run the same wsss-ray shard command again."

        try:
            with (
                damage_as_shard_error(text),
                images.open(name) as file,
                pq.ParquetFile(file, page_checksum_verification=True) as parquet,
            ):
                ids: list[str] = parquet.read(columns=["image_id"])["image_id"].to_pylist()
        except FileNotFoundError as error:
            raise ShardError(text(error)) from error
        yield name, ids
