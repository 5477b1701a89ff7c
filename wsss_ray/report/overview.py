"""What the gallery's first page says of the whole run: counts, classes, agreement, audit, throughput, configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from wsss_ray.labels.run import LabelRun
from wsss_ray.labels.summary import SUMMARY_FILE, summarise
from wsss_ray.report.unit import Card
from wsss_ray.shards.schemas import STATUSES
from wsss_ray.storage.storage import Storage

BINS = 20
"""Of the histogram of the images' mIoU."""
SHOWN = 10
"""Rows of a table of errors, drift or images."""
_SECRET = re.compile(r"secret|passw|credential|(api|access)_?key|(?<![a-z])token(?![a-z])", re.IGNORECASE)
_USER_INFO = re.compile(r"(\w+://)[^/@\s]+@")
_QUERY = re.compile(r"(\w+://[^\s?]+)\?\S+")


class Agreement:
    """How the labels shown agree with the truth, image by image."""

    def __init__(self, classes: int) -> None:
        """Count for this many classes."""
        self.images = 0
        self._total = 0.0
        self._bins = [0] * BINS
        self._classes = np.zeros((2, classes))

    def add(self, card: Card) -> None:
        """Count an image, if it has a truth and a label."""
        if card.iou is None:
            return
        self.images += 1
        self._total += card.iou
        self._bins[min(BINS - 1, int(card.iou * BINS))] += 1
        for index, iou in card.class_iou:
            self._classes[:, index] += (iou, 1)

    @property
    def mean(self) -> float | None:
        """Mean over the images of their own mIoU: not the mIoU of a benchmark, which counts pixels over all images."""
        return self._total / self.images if self.images else None

    @property
    def bins(self) -> list[int]:
        """Images by their mIoU, in BINS equal steps from 0 to 1."""
        return list(self._bins)

    def of_class(self, index: int) -> float | None:
        """Mean IoU of a class over the images that have it in truth or label."""
        total, images = self._classes[:, index]
        return float(total / images) if images else None


def read_counts(run: LabelRun) -> dict[str, Any]:
    """Counts of the whole run, from its label files' footers, and what summary.json tells of its last session.

    The images of a damaged label file count as failed.
    """
    counts = summarise(run.labels, run.units, None, damaged_fail=True)
    try:
        counts["session"] = json.loads(run.labels.read(SUMMARY_FILE)).get("session")
    except FileNotFoundError:  # a run that has not ended yet
        counts["session"] = None
    return counts


def class_rows(run: LabelRun, counts: Mapping[str, Any], agreement: Agreement) -> list[dict[str, Any]]:
    """The table of classes that have tags or pixels."""
    pixels = sum(entry["pixels"] for entry in counts["classes"].values())
    rows = []
    for index, name in enumerate(run.classes.names):
        entry = counts["classes"].get(name)
        if entry:
            found = entry["detected"] / entry["tagged"] if entry["tagged"] else None
            share = entry["pixels"] / pixels if pixels else 0.0
            iou = agreement.of_class(index)
            rows.append({"name": name, "index": index, **entry, "found": found, "share": share, "iou": iou})
    return rows


def status_rows(counts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Statuses with their counts, shares, and where their part of a bar begins."""
    rows, start = [], 0.0
    for status in STATUSES:
        images = counts["statuses"].get(status, 0)
        if images:
            share = images / counts["images"]
            rows.append({"name": status, "images": images, "share": share, "start": start})
            start += share
    return rows


def error_rows(counts: Mapping[str, Any]) -> list[tuple[str, int]]:
    """The most frequent reasons of failed images."""
    return sorted(counts["errors"].items(), key=lambda item: (-item[1], item[0]))[:SHOWN]


def stage_rows(session: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Actor seconds by part of the work."""
    seconds: Mapping[str, float] = (session or {}).get("stage_seconds", {})
    longest = max(seconds.values(), default=0.0)
    return [
        {"name": name, "seconds": value, "share": value / longest if longest else 0.0}
        for name, value in sorted(seconds.items(), key=lambda item: -item[1])
    ]


def setting_rows(identity: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What run.json holds, flat, without anything that looks like a secret."""
    return [(key, _public(key, value)) for key, value in _flat(identity, "")]


def portable(storage: Storage) -> str:
    """Where a folder is, as far as it means something to others: a URI, or the last name of a path of this machine."""
    return PurePosixPath(storage.uri).name if storage.is_local else storage.uri


def _flat(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key in sorted(value):
            yield from _flat(value[key], f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _public(key: str, value: Any) -> str:
    if _SECRET.search(key):
        return "(hidden)"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_public("", item) for item in value)
    text = value if isinstance(value, str) else json.dumps(value)
    return _QUERY.sub(r"\1", _USER_INFO.sub(r"\1", text))


def read_audit(storage: Storage) -> dict[str, Any]:
    """The audit's summary.

    Raises:
        ValueError: the folder holds none.
    """
    try:
        summary = json.loads(storage.read("audit.json"))
    except FileNotFoundError:
        raise ValueError(
            f"{storage.uri} holds no audit.json: --audit must be the --output of wsss-ray audit."
        ) from None
    assert isinstance(summary, dict), "written by the audit job"
    return summary
