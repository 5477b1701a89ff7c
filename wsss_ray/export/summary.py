"""The summary of an export: export-summary.json, and the same as text for the screen."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from wsss_ray.export.exported import ExportedUnits, LeftOut, Slot
from wsss_ray.shards.units import Unit
from wsss_ray.storage.json_files import decode_json, encode_json

SUMMARY_FILE = "export-summary.json"
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """Counts of an export, and the images that it leaves out."""

    format: str
    split: str
    images: int
    left_out: tuple[LeftOut, ...]
    """Labelled images that are not in the export: failed ones, and rows that could not be exported."""
    unlabelled_images: int
    unlabelled_units: tuple[str, ...]
    """Units that the labelling run has not finished, and the number of their images."""
    damaged: dict[str, str]
    """Reason by unit for label files that cannot be used; their images are left out."""
    counts: dict[str, int]
    notes: tuple[str, ...]
    state: str
    """Digest of the label files that are in the export."""

    def to_json(self) -> bytes:
        """Return the content of the summary file."""
        return encode_json(asdict(self))

    @staticmethod
    def from_json(data: bytes, name: str) -> ExportSummary:
        """Parse a summary file called `name`; ValueError where it is damaged."""
        content = decode_json(data, name)
        try:
            content["left_out"] = tuple(LeftOut(**image) for image in content["left_out"])
            content["unlabelled_units"] = tuple(content["unlabelled_units"])
            content["notes"] = tuple(content["notes"])
            return ExportSummary(**content)
        except (LookupError, TypeError) as error:
            raise ValueError(f"{name} is damaged: {error!r}.") from error

    def __str__(self) -> str:
        """Return the text for the screen."""
        lines = [f"{self.format}, split {self.split}: {self.images:,} images"]
        lines += [f"  {name}: {count:,}" for name, count in self.counts.items() if name != "images"]
        if self.left_out:
            lines.append(f"left out: {len(self.left_out):,}, all in {SUMMARY_FILE}")
            lines += [f"  {image.image_id}: {image.reason}" for image in self.left_out[:_SHOWN]]
            if len(self.left_out) > _SHOWN:
                lines.append(f"  and {len(self.left_out) - _SHOWN:,} more")
        if self.unlabelled_images:
            lines.append(
                f"{self.unlabelled_images:,} images in {len(self.unlabelled_units):,} units have no label yet and are "
                "not in it; finish the labelling run, then run this command again."
            )
        return "\n".join([*lines, *self.notes])


def summarize(exported: ExportedUnits, *, format_name: str, split: str, missing: Sequence[Unit]) -> ExportSummary:
    """Return the sums over all units, with no notes yet."""
    counts: Counter[str] = Counter()
    left_out: list[LeftOut] = []
    damaged = {}
    for slot, unit in zip(exported.slots, exported.units(), strict=True):
        counts.update(unit.counts)
        left_out += unit.left_out
        if unit.damage is not None:
            damaged[slot.unit.name] = unit.damage
    return ExportSummary(
        format=format_name,
        split=split,
        images=counts["images"],
        left_out=tuple(left_out),
        unlabelled_images=sum(unit.rows for unit in missing),
        unlabelled_units=tuple(unit.name for unit in missing),
        damaged=damaged,
        counts=dict(sorted(counts.items())),
        notes=(),
        state=state_of(exported.slots, missing),
    )


def state_of(slots: Sequence[Slot], missing: Sequence[Unit]) -> str:
    """Return the digest of the label files, in their versions, that an export is made of."""
    names = [*(slot.name for slot in slots), "", *(unit.name for unit in missing)]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()
