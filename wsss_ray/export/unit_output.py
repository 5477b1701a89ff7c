"""Write the files of one exported unit."""

from __future__ import annotations

import io
import json
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from wsss_ray.export.exported import ExportedImage, ExportedUnit, LeftOut
from wsss_ray.export.records import Record
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage

_WRITERS = 8


@dataclass(kw_only=True)
class UnitOutput:
    """Writer of one unit's files. A context manager: all files are written when it exits."""

    unit: Unit
    storage: Storage
    part: io.BytesIO = field(default_factory=io.BytesIO)
    """The unit's part of a file that covers all units, in a form that the format chooses."""
    counts: Counter[str] = field(default_factory=Counter)
    """Counts for the summary, by description."""
    images: list[ExportedImage] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    damage: str | None = None
    """Why the unit's label file cannot be used."""
    _pending: deque[Future[None]] = field(default_factory=deque)

    def __enter__(self) -> Self:
        """Start the writing threads."""
        self._pool = ThreadPoolExecutor(_WRITERS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the writing threads and raise the first of their errors."""
        self._pool.shutdown(wait=True, cancel_futures=error is not None)
        while error is None and self._pending:
            self._pending.popleft().result()

    def write(self, path: str, data: bytes) -> None:
        """Write a file of the export in the background."""
        while len(self._pending) >= 2 * _WRITERS:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self.storage.write, path, data))

    def add_line(self, value: dict[str, Any]) -> None:
        """Add a JSON line to the part."""
        self.part.write(json.dumps(value, allow_nan=False, separators=(",", ":")).encode() + b"\n")

    def note_damage(self, problem: str) -> None:
        """Note why the unit's label file cannot be used."""
        self.damage = problem

    def count(self, records: Iterator[Record | LeftOut]) -> Iterator[Record]:
        """Yield the records that are exported; count all."""
        for record in records:
            if isinstance(record, LeftOut):
                self.left_out.append(record)
                continue
            self.counts["images"] += 1
            self.counts[f"status {record.status}"] += 1
            if record.change is not None:
                self.counts[f"images {record.change}"] += 1
            self.images.append(
                ExportedImage(
                    image_id=record.image_id, file_name=record.file_name, height=record.height, width=record.width
                )
            )
            yield record

    @property
    def exported(self) -> ExportedUnit:
        """Images and counts so far."""
        return ExportedUnit(
            images=tuple(self.images),
            left_out=tuple(self.left_out),
            counts=dict(sorted(self.counts.items())),
            damage=self.damage,
        )
