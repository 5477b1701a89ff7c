"""Summary of a shard job: `rejected.parquet`, `summary.json`, and the table on the screen."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from wsss_ray.classes import ClassSet
from wsss_ray.datasets.items import Listing
from wsss_ray.datasets.rows import Rejected, shown_path
from wsss_ray.sharding.writing import ShardReport
from wsss_ray.shards.image_shards import REJECTED_FILE
from wsss_ray.shards.schemas import REJECTED_SCHEMA
from wsss_ray.storage.json_files import encode_json

SUMMARY_FILE = "summary.json"
_SHOWN = 5
"""Rejected or unlisted images that are named on the screen."""


@dataclass(frozen=True, kw_only=True)
class ShardSummary:
    """Counts of a shard job. images = rows + rejected + skipped."""

    images: int
    """Listed images."""
    rows: int
    rejected: int
    skipped: int
    """Images that are left out because they have no tag (`untagged: skip`)."""
    reasons: Mapping[str, int]
    """Rejected images by stage and kind of reason."""
    untagged: int
    """Rows without a tag."""
    tags: Mapping[str, int]
    """Rows of each class, in the class set's order, zeros included."""
    dropped_tags: Mapping[str, int]
    """Unknown tags that were dropped."""
    rejected_first: tuple[str, ...]
    """The first rejected images, each with its reason."""
    unlisted: int
    """Images on disk that the tag file does not name."""
    unlisted_first: tuple[str, ...]
    """The first of them."""
    truth: int
    """Rows with a truth."""
    shards: int
    size: int
    """Bytes of all shards."""
    notes: tuple[str, ...]

    def to_json(self) -> bytes:
        """Return the content of the JSON file."""
        return encode_json(asdict(self))

    def __str__(self) -> str:
        """Return the table for the screen."""
        lines = [
            ("images", f"{self.images:,}"),
            ("rows", f"{self.rows:,}" + (f" ({self.untagged:,} without a tag)" if self.untagged else "")),
            ("skipped (no tag)", f"{self.skipped:,}" if self.skipped else ""),
            ("rejected", f"{self.rejected:,}" + (f" (see {REJECTED_FILE})" if self.rejected else "")),
            *((f"  {reason}", f"{count:,}") for reason, count in self.reasons.items()),
            *(("", text) for text in self.rejected_first),
            *(("", f"and {more:,} more") for more in [self.rejected - len(self.rejected_first)] if more),
            ("not listed", f"{self.unlisted:,} images on disk are not in the tag file" if self.unlisted else ""),
            *(("", text) for text in self.unlisted_first),
            *(("", f"and {more:,} more") for more in [self.unlisted - len(self.unlisted_first)] if more),
            ("truth", f"{self.truth:,} of {self.rows:,} rows"),
            ("shards", f"{self.shards:,}, {self.size / 1e6:,.1f} MB"),
            ("tags", f"{sum(self.tags.values()):,} in {sum(map(bool, self.tags.values()))} classes"),
            *((f"  {name}", f"{count:,}") for name, count in self.tags.items() if count),
            ("dropped tags", f"{sum(self.dropped_tags.values()):,}" if self.dropped_tags else ""),
            *((f"  {tag}", f"{count:,}") for tag, count in self.dropped_tags.items()),
        ]
        lines = [(label, text) for label, text in lines if text]
        width = max(len(label) for label, _ in lines)
        return "\n".join([*(f"{label:<{width}}  {text}" for label, text in lines), *self.notes])


def summarize(reports: Sequence[ShardReport], listing: Listing, class_set: ClassSet, *, skipped: int) -> ShardSummary:
    """Return the sum of all shards' reports; `skipped` counts untagged images that are in none of them."""
    rejected = [entry for report in reports for entry in report.rejected]
    tags = sum((Counter(report.tags) for report in reports), Counter[str]())
    reasons = Counter(f"{entry.stage}: {entry.reason.partition(':')[0]}" for entry in rejected)
    summary = ShardSummary(
        images=len(listing.items),
        rows=sum(report.rows for report in reports),
        rejected=len(rejected),
        skipped=skipped + sum(report.skipped for report in reports),
        reasons=dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        untagged=sum(report.untagged for report in reports),
        tags={name: tags[name] for name in class_set.names},
        dropped_tags=listing.dropped_tags,
        rejected_first=tuple(f"{entry.source}: {entry.stage}: {entry.reason}" for entry in rejected[:_SHOWN]),
        unlisted=len(listing.unlisted),
        unlisted_first=tuple(shown_path(path) for path in listing.unlisted[:_SHOWN]),
        truth=sum(report.truth for report in reports),
        shards=len(reports),
        size=sum(report.size for report in reports),
        notes=listing.notes,
    )
    assert summary.images == summary.rows + summary.rejected + summary.skipped, "every image is accounted for"
    return summary


def encode_rejected(rejected: Sequence[Rejected]) -> bytes:
    """Return the Parquet bytes of the rejected images."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([asdict(entry) for entry in rejected], schema=REJECTED_SCHEMA), buffer)
    return buffer.getvalue()
