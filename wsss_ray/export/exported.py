"""Reports and parts of exported units, and reading them back.

Each unit leaves a report, and a part where the format joins parts, in `export-parts/` of the output. The report is
written last and marks the unit as done. The names contain the version of the label file, so that replaced labels are
exported again.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from wsss_ray.shards.units import Unit
from wsss_ray.storage.json_files import decode_json, encode_json
from wsss_ray.storage.storage import Storage

PARTS = "export-parts"
_READ_AHEAD = 4


@dataclass(frozen=True, kw_only=True)
class ExportedImage:
    """An exported image, as lists of images name it."""

    image_id: str
    file_name: str
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """An image that is not exported."""

    image_id: str
    reason: str
    """The error of the failed row, or what is wrong with the row."""


@dataclass(frozen=True, kw_only=True)
class ExportedUnit:
    """Images and counts of one unit."""

    images: tuple[ExportedImage, ...]
    left_out: tuple[LeftOut, ...]
    counts: dict[str, int]
    damage: str | None = None
    """Why the unit's label file cannot be used; all its images are left out then."""
    part_sha256: str | None = None
    """Digest of the unit's part."""

    def to_json(self) -> bytes:
        """Return the content of the unit's report."""
        return encode_json(asdict(self))

    @staticmethod
    def from_json(data: bytes, name: str) -> ExportedUnit:
        """Parse a report called `name`; ValueError where it is damaged."""
        content = decode_json(data, name)
        try:
            return ExportedUnit(
                images=tuple(ExportedImage(**image) for image in content["images"]),
                left_out=tuple(LeftOut(**image) for image in content["left_out"]),
                counts=dict(content["counts"]),
                damage=content.get("damage"),
                part_sha256=content.get("part_sha256"),
            )
        except (LookupError, TypeError) as error:
            raise ValueError(f"{name} is damaged: {error!r}. Remove it and run wsss-ray export again.") from error


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A unit with the paths of its part and its report."""

    unit: Unit
    version: str
    """Version of its label file."""

    @property
    def name(self) -> str:
        """File name without suffix."""
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
class ExportedUnits:
    """All units of an export, in order. Their files are read when iterated, a few ahead."""

    output: Storage
    slots: Sequence[Slot]
    counts: Counter[str] = field(default_factory=Counter)
    """Sums over all units."""

    def units(self) -> Iterator[ExportedUnit]:
        """Iterate over the units' reports."""
        paths = [slot.report_path for slot in self.slots]
        for path, data in zip(paths, self._read(paths), strict=True):
            yield ExportedUnit.from_json(data, self.output.describe(path))

    def images(self) -> Iterator[ExportedImage]:
        """Iterate over all exported images."""
        return (image for unit in self.units() for image in unit.images)

    def parts(self) -> Iterator[bytes]:
        """Iterate over the units' parts; raises ValueError for a damaged one."""
        parts = self._read([slot.part_path for slot in self.slots])
        for slot, unit, part in zip(self.slots, self.units(), parts, strict=True):
            if unit.part_sha256 not in (None, hashlib.sha256(part).hexdigest()):
                raise ValueError(
                    f"{self.output.describe(slot.part_path)} is damaged: its content has not the digest in the report "
                    f"beside it. Remove {slot.report_path} and run wsss-ray export again."
                )
            yield part

    def lines(self) -> Iterator[dict[str, Any]]:
        """Iterate over the JSON lines of all parts."""
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
