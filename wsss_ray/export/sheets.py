"""What the export of one unit leaves: files, a part of what is joined at the end, and a report.

Parts and reports lie in `export-parts/` of the output, one pair per unit; the report comes last and is the mark that
the unit is done. Their names hold the version of the label file, so that labels that were replaced are exported anew.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self

from wsss_ray.export.records import LeftOut, Record
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage

PARTS = "export-parts"
_WRITERS = 8
_READ_AHEAD = 4


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An exported image, as lists of images name it."""

    image_id: str
    file_name: str
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of one unit."""

    entries: tuple[Entry, ...]
    left_out: tuple[LeftOut, ...]
    counts: dict[str, int]

    def to_json(self) -> bytes:
        """The report as a JSON file."""
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    @staticmethod
    def from_json(data: bytes) -> Report:
        """Inverse of `to_json`."""
        content = json.loads(data)
        return Report(
            entries=tuple(Entry(**entry) for entry in content["entries"]),
            left_out=tuple(LeftOut(**entry) for entry in content["left_out"]),
            counts=content["counts"],
        )


@dataclass(kw_only=True)
class Sheet:
    """Collects what one unit gives. A context: at its end all files are written."""

    unit: Unit
    output: Storage
    part: io.BytesIO = field(default_factory=io.BytesIO)
    """The unit's share of what is joined at the end; a format's own form."""
    counts: Counter[str] = field(default_factory=Counter)
    """Sums for the summary."""
    entries: list[Entry] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    _pending: deque[Future[None]] = field(default_factory=deque)

    def __enter__(self) -> Self:
        """Start the writers."""
        self._pool = ThreadPoolExecutor(_WRITERS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the writers; what one of them raised is raised."""
        self._pool.shutdown(wait=True, cancel_futures=error is not None)
        while error is None and self._pending:
            self._pending.popleft().result()

    def write(self, path: str, data: bytes) -> None:
        """Write a file of the export; a few are under way at once."""
        while len(self._pending) >= 2 * _WRITERS:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self.output.write, path, data))

    def add_line(self, value: dict[str, Any]) -> None:
        """Add a line of JSON to the part."""
        self.part.write(json.dumps(value, allow_nan=False, separators=(",", ":")).encode() + b"\n")

    def kept(self, records: Iterator[Record | LeftOut]) -> Iterator[Record]:
        """Note what is exported and what is left out; passes the records on."""
        for record in records:
            if isinstance(record, LeftOut):
                self.left_out.append(record)
                continue
            self.counts["images"] += 1
            self.counts[f"status {record.status}"] += 1
            if record.change is not None:
                self.counts[f"images {record.change}"] += 1
            entry = Entry(
                image_id=record.image_id, file_name=record.file_name, height=record.height, width=record.width
            )
            self.entries.append(entry)
            yield record

    @property
    def report(self) -> Report:
        """The report."""
        return Report(
            entries=tuple(self.entries), left_out=tuple(self.left_out), counts=dict(sorted(self.counts.items()))
        )


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A unit, and where its part and report lie."""

    unit: Unit
    version: str
    """Of its label file."""

    @property
    def name(self) -> str:
        """Name of the slot's files, without suffix."""
        return f"{self.unit.name}-{hashlib.sha256(self.version.encode()).hexdigest()[:8]}"

    @property
    def report_path(self) -> str:
        """Path of the report below the output."""
        return f"{PARTS}/{self.name}.json"

    @property
    def part_path(self) -> str:
        """Path of the part below the output."""
        return f"{PARTS}/{self.name}.part"


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Parts and reports of all units, in order; read when they are asked for, a few ahead."""

    output: Storage
    slots: Sequence[Slot]

    def reports(self) -> Iterator[Report]:
        """Report of each unit."""
        return (Report.from_json(data) for data in self._read([slot.report_path for slot in self.slots]))

    def entries(self) -> Iterator[Entry]:
        """Every exported image."""
        return (entry for report in self.reports() for entry in report.entries)

    def parts(self) -> Iterator[bytes]:
        """Part of each unit."""
        return self._read([slot.part_path for slot in self.slots])

    def lines(self) -> Iterator[dict[str, Any]]:
        """Lines of JSON of all parts."""
        for part in self.parts():
            for line in part.splitlines():
                yield json.loads(line)

    def _read(self, paths: Sequence[str]) -> Iterator[bytes]:
        waiting = deque(paths)
        under_way: deque[Future[bytes]] = deque()
        with ThreadPoolExecutor(_READ_AHEAD) as pool:
            while waiting or under_way:
                while waiting and len(under_way) < _READ_AHEAD:
                    under_way.append(pool.submit(self.output.read, waiting.popleft()))
                yield under_way.popleft().result()
