"""What a gallery was made of, so that a rerun knows whether anything changed."""

from __future__ import annotations

import dataclasses
import hashlib
import json

from wsss_ray.config import ReportConfig
from wsss_ray.labels.run import LabelRun
from wsss_ray.labels.summary import SUMMARY_FILE
from wsss_ray.storage.storage import Storage

MARKER = "gallery.json"
"""Marks a folder as a gallery; it names the state once the gallery is whole."""
GALLERY_VERSION = 2
"""Counts changes of the code that change galleries."""
_AUDIT_FILES = ("audit.json", "audit.parquet", "places.parquet")


def state_of(config: ReportConfig, run: LabelRun) -> str:
    """SHA-256 (hex) of all that a gallery shows: configuration, classes, images, labels, summary and audit."""
    shown = dataclasses.asdict(config)
    for place in ("storage", "ray", "status_seconds", "output"):
        del shown[place]
    versions = run.labels.list("labels")
    content = {
        "version": GALLERY_VERSION,
        "config": shown,
        "classes": [(entry.name, entry.id, entry.color) for entry in run.classes.classes],
        "shards": run.shards.digest,
        "identity": dict(run.identity),
        "labels": [versions[unit.label_path.removeprefix("labels/")].version for unit in run.units],
        "summary": _digest(run.labels, SUMMARY_FILE),
    }
    if config.audit is not None:
        audit = Storage(config.audit, config.storage)
        content["audit"] = [_digest(audit, name) for name in _AUDIT_FILES]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def encode_marker(state: str | None) -> bytes:
    """Content of MARKER; without a state while the gallery is not whole."""
    return (json.dumps({"made_by": "wsss_ray report", "state": state}) + "\n").encode()


def read_marker(output: Storage) -> str | None:
    """The state of a whole gallery; None where it is not whole, or of an earlier version."""
    try:
        state = json.loads(output.read(MARKER)).get("state")
    except (json.JSONDecodeError, AttributeError):
        return None
    return state if isinstance(state, str) else None


def _digest(storage: Storage, path: str) -> str | None:
    try:
        return hashlib.sha256(storage.read(path)).hexdigest()
    except FileNotFoundError:
        return None
