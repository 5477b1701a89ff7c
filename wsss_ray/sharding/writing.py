"""Write one image shard and its report."""

from __future__ import annotations

import dataclasses
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from wsss_ray.datasets.items import Item
from wsss_ray.datasets.rows import Fetched, Rejected, RowMaker, reject
from wsss_ray.shards.footers import parse_footer
from wsss_ray.shards.image_encoding import encode_image_shard, report_path, shard_name
from wsss_ray.shards.schemas import IMAGE_SCHEMA
from wsss_ray.storage.json_files import decode_json, encode_json
from wsss_ray.storage.storage import Storage

if TYPE_CHECKING:
    from wsss_ray.engine.ray_mapping import Isolation  # imports Ray, which a small job does not need

_READERS = 8
_READ_AHEAD_BYTES = 64_000_000


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """One shard to write."""

    index: int
    total: int
    items: tuple[Item, ...]
    condemned: frozenset[str] = frozenset()
    """Paths of images that killed the process that checked them: rejected without being read."""

    @property
    def name(self) -> str:
        """File name of the shard."""
        return shard_name(self.index, self.total)

    @property
    def size(self) -> int:
        """Bytes of the listed image files."""
        return sum(item.size or 0 for item in self.items)

    @property
    def report_path(self) -> str:
        """Path of the shard's report below the output."""
        return report_path(self.name)


@dataclass(frozen=True, kw_only=True)
class ShardReport:
    """Counts of one shard, and its rejected items."""

    images: int
    """Items: rows, rejected and skipped ones."""
    rows: int
    skipped: int
    """Items that are left out because their mask has no tag."""
    untagged: int
    """Rows without a tag."""
    truth: int
    """Rows with a truth."""
    size: int
    """Bytes of the shard file."""
    tags: Mapping[str, int]
    """Rows of each class."""
    rejected: tuple[Rejected, ...] = field(default=())
    footer: Mapping[str, Any] | None = None
    """The shard's footer: its units stay known where the shard is damaged."""

    def to_json(self) -> bytes:
        """Return the content of the JSON file, with a digest."""
        return encode_json(asdict(self))

    @staticmethod
    def from_json(data: bytes, name: str) -> ShardReport:
        """Parse a report called `name`; ValueError where it is damaged."""
        content = decode_json(data, name)
        try:
            rejected = tuple(Rejected(**entry) for entry in content.pop("rejected"))
            report = ShardReport(**content, rejected=rejected)
            whole = report.images == report.rows + report.skipped + len(report.rejected)
        except (TypeError, KeyError) as error:
            raise ValueError(f"{name} is damaged: {error}.") from error
        if not whole:
            raise ValueError(f"{name} is damaged: its counts do not add up.")
        return report


@dataclass(frozen=True, kw_only=True)
class ShardWriter:
    """Writes shards of one set. Can be pickled."""

    output: Storage
    maker: RowMaker
    images_per_unit: int
    exif: Literal["apply", "ignore"]
    max_pixels: int
    label_space: str
    classes: str
    skip_untagged: bool

    def write(self, task: ShardTask) -> ShardReport:
        """Write the report, then the shard, each atomically; a shard that exists has a report.

        In memory are the shard's bytes, the read-ahead (64 MB), and a few copies of one unit.
        """
        counts = _ShardCounts()
        groups = self._groups(task, counts)
        data = encode_image_shard(
            groups,
            exif=self.exif,
            label_space=self.label_space,
            classes=self.classes,
            max_pixels=self.max_pixels,
        )
        footer = parse_footer(data, task.name, kind="images")
        report = counts.report(images=len(task.items), size=len(data), footer=footer)
        self.output.write(task.report_path, report.to_json())
        self.output.write(task.name, data)
        return report

    def write_isolated(self, task: ShardTask, isolation: Isolation) -> ShardReport:
        """Write a shard without the images that kill the process that checks them; these are rejected."""
        items = {item.path: item for item in task.items}
        killers = isolation.find_killers(items, lambda path: self._check(items[path]))
        return self.write(dataclasses.replace(task, condemned=killers))

    def _check(self, item: Item) -> None:
        """Read and check one image, to see whether the process survives."""
        fetched = self.maker.fetch(item)
        if isinstance(fetched, Fetched):
            self.maker.make(item, fetched)

    def _groups(self, task: ShardTask, counts: _ShardCounts) -> Iterator[pa.Table]:
        rows: list[dict[str, Any]] = []
        for item, fetched in self._fetch_ahead(task):
            row = fetched if isinstance(fetched, Rejected) else self.maker.make(item, fetched)
            if isinstance(row, Rejected):
                counts.rejected.append(row)
            elif self.skip_untagged and not row["tags"]:
                counts.skipped += 1
            else:
                counts.add(row)
                rows.append(row)
            if len(rows) == self.images_per_unit:
                yield pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA)
                rows.clear()
        if rows:
            yield pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA)

    def _fetch_ahead(self, task: ShardTask) -> Iterator[tuple[Item, Fetched | Rejected]]:
        """Yield the items in order with the bytes that were read; a few are read ahead, up to a number of bytes."""
        window: deque[tuple[Item, Future[Fetched | Rejected]]] = deque()
        waiting = deque(task.items)
        ahead = 0
        with ThreadPoolExecutor(_READERS) as pool:
            while waiting or window:
                while waiting and (not window or (len(window) < 2 * _READERS and ahead < _READ_AHEAD_BYTES)):
                    item = waiting.popleft()
                    condemned = item.path in task.condemned
                    window.append((item, pool.submit(_condemn if condemned else self.maker.fetch, item)))
                    ahead += item.size or 0
                item, future = window.popleft()
                ahead -= item.size or 0
                yield item, future.result()


def _condemn(item: Item) -> Rejected:
    return reject(item, "crash", "killed its process: twice, alone")


@dataclass(kw_only=True)
class _ShardCounts:
    """Counts while a shard is written."""

    rows: int = 0
    skipped: int = 0
    untagged: int = 0
    truth: int = 0
    tags: Counter[str] = field(default_factory=Counter)
    rejected: list[Rejected] = field(default_factory=list)

    def add(self, row: Mapping[str, Any]) -> None:
        self.rows += 1
        self.untagged += not row["tags"]
        self.truth += row["truth"] is not None
        self.tags.update(row["tags"])

    def report(self, *, images: int, size: int, footer: Mapping[str, Any]) -> ShardReport:
        return ShardReport(
            images=images,
            rows=self.rows,
            skipped=self.skipped,
            untagged=self.untagged,
            truth=self.truth,
            size=size,
            tags=dict(sorted(self.tags.items())),
            rejected=tuple(self.rejected),
            footer=footer,
        )
