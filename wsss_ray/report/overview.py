"""Content of the gallery's first page: counts, classes, agreement, audit, throughput and configuration of the run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from wsss_ray.config import ReportConfig
from wsss_ray.labels.run import LabelRun
from wsss_ray.labels.summary import summarise
from wsss_ray.shards.schemas import STATUSES
from wsss_ray.storage.json_files import read_json
from wsss_ray.storage.redaction import masked
from wsss_ray.storage.storage import Storage

if TYPE_CHECKING:
    from wsss_ray.report.unit import Card

AUDIT_FILE = "audit.json"
EVALUATION_FILE = "evaluation.json"
BINS = 20
"""Steps of the histogram of mIoU per image."""
SHOWN = 10
"""Rows of the table of errors."""
_SECRET = re.compile(r"secret|passw|credential|(api|access)_?key|(?<![a-z])token(?![a-z])", re.IGNORECASE)


class Agreement:
    """Agreement of the shown labels with the truth, image by image."""

    def __init__(self, classes: int) -> None:
        """Start without an image, for this number of classes."""
        self.images = 0
        self._total = 0.0
        self._bins = [0] * BINS
        self._classes = np.zeros((2, classes))

    def add(self, card: Card) -> None:
        """Add an image if it has a truth and a label."""
        if card.iou is None:
            return
        self.images += 1
        self._total += card.iou
        self._bins[min(BINS - 1, int(card.iou * BINS))] += 1
        for index, iou in card.class_iou:
            self._classes[:, index] += (iou, 1)

    @property
    def mean(self) -> float | None:
        """Mean over the images of each image's own mIoU. A benchmark's mIoU sums the pixels of all images first."""
        return self._total / self.images if self.images else None

    @property
    def bins(self) -> list[int]:
        """Number of images by mIoU, in BINS equal steps from 0 to 1."""
        return list(self._bins)

    def of_class(self, index: int) -> float | None:
        """Return the mean IoU of a class over the images with the class in truth or label."""
        total, images = self._classes[:, index]
        return float(total / images) if images else None


def read_counts(run: LabelRun) -> dict[str, Any]:
    """Return the counts of the whole run, from the footers of its label files, and its last session.

    The images of a damaged label file count as failed.
    """
    counts = summarise(run.labels, run.units, None)
    counts.setdefault("session", None)  # a run that has not ended yet
    return counts


def class_rows(
    run: LabelRun, counts: Mapping[str, Any], agreement: Agreement, evaluation: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """Return the table of the classes with tags or pixels, in the order of the class set."""
    standard = {entry["name"]: entry["iou"] for entry in evaluation["classes"]} if evaluation else {}
    pixels = sum(entry["pixels"] for entry in counts["classes"].values())
    rows = []
    for index, name in enumerate(run.classes.names):
        entry = counts["classes"].get(name)
        if entry:
            found = entry["detected"] / entry["tagged"] if entry["tagged"] else None
            share = entry["pixels"] / pixels if pixels else 0.0
            iou = agreement.of_class(index)
            rows.append(
                {
                    **{"name": name, "index": index, **entry, "found": found, "share": share},
                    **{"iou": iou, "standard_iou": standard.get(name)},
                }
            )
    return rows


def status_rows(counts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the statuses with counts, shares, and the starts of their parts of a bar."""
    rows, start = [], 0.0
    for status in STATUSES:
        images = counts["statuses"].get(status, 0)
        if images:
            share = images / counts["images"]
            rows.append({"name": status, "images": images, "share": share, "start": start})
            start += share
    return rows


def error_rows(counts: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return the most frequent errors of failed images."""
    return sorted(counts["errors"].items(), key=lambda item: (-item[1], item[0]))[:SHOWN]


def stage_rows(session: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the actor seconds by part of the work."""
    seconds: Mapping[str, float] = (session or {}).get("stage_seconds", {})
    longest = max(seconds.values(), default=0.0)
    return [
        {"name": name, "seconds": value, "share": value / longest if longest else 0.0}
        for name, value in sorted(seconds.items(), key=lambda item: -item[1])
    ]


def setting_rows(identity: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the settings of run.json, flat, without anything that looks like a secret."""
    return [(key, _public(key, value)) for key, value in _flat(identity, "")]


def portable(storage: Storage) -> str:
    """Return the address of a folder for other readers: a URI, or the last name of a local path."""
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
    return masked(value if isinstance(value, str) else json.dumps(value))


def read_audit(storage: Storage) -> dict[str, Any]:
    """Return the audit's summary.

    Raises:
        ValueError: the folder holds none, it is damaged, or an older version wrote it.
    """
    audit = _read_result(storage, AUDIT_FILE, option="audit")
    if "disagreements" not in audit.get("against_truth", {"disagreements": 0}):
        raise ValueError(f"--audit: an older version wrote {storage.describe(AUDIT_FILE)}. Run wsss-ray audit again.")
    return audit


def read_evaluation(config: ReportConfig, run: LabelRun) -> dict[str, Any] | None:
    """Return the content of the evaluation's JSON file, None if the configuration names no evaluation.

    Raises:
        ValueError: the folder holds none, it is damaged, or it evaluates other labels.
    """
    if config.evaluation is None:
        return None
    content = _read_result(Storage(config.evaluation, config.storage), EVALUATION_FILE, option="evaluation")
    try:
        evaluated = Storage(content["config"]["labels"], config.storage).uri
        {entry["name"]: entry["iou"] for entry in content["classes"]}
        content["miou"], content["images"], content["split"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{config.evaluation}: {EVALUATION_FILE} is damaged: {error!r} is missing.") from error
    if evaluated != run.labels.uri:
        raise ValueError(
            f"--evaluation: {config.evaluation} evaluates the labels in {evaluated}, not those in {run.labels.uri}."
        )
    return content


def _read_result(storage: Storage, name: str, *, option: str) -> dict[str, Any]:
    try:
        return read_json(storage, name)
    except FileNotFoundError:
        raise ValueError(
            f"{storage.uri} holds no {name}: --{option} must be the --output of wsss-ray "
            f"{'audit' if option == 'audit' else 'evaluate'}."
        ) from None
