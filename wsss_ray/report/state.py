"""The marker of a gallery: a digest of its inputs, and the report that is writing it."""

from __future__ import annotations

import dataclasses
import hashlib
import json

from wsss_ray.config import ReportConfig
from wsss_ray.engine.ownership import Ownership
from wsss_ray.errors import JobError
from wsss_ray.labels.run import LabelRun
from wsss_ray.labels.summary import SUMMARY_FILE
from wsss_ray.report.overview import AUDIT_FILE, EVALUATION_FILE
from wsss_ray.storage.json_files import encode_json, read_json
from wsss_ray.storage.storage import Storage

MARKER = "gallery.json"
"""Marks a folder as a gallery. It holds the state of a complete gallery, or the writer of an unfinished one."""
GALLERY_VERSION = 4
"""Incremented when a change of the code changes galleries."""
_MADE_BY = "wsss_ray report"
_AUDIT_FILES = (AUDIT_FILE, "audit.parquet", "disagreements.parquet")


def begin_gallery(output: Storage) -> Ownership:
    """Mark the gallery as unfinished and written by this report. A later report in the same folder takes it over."""
    return Ownership.take(output, MARKER, made_by=_MADE_BY, state=None)


def check_owner(gallery: Ownership) -> None:
    """Raise a JobError if another report has taken over the folder."""
    if not gallery.is_current():
        raise JobError(
            f"another report is writing a gallery to {gallery.output.uri}: this one ends here. Give each its own "
            "--output."
        )


def finish_gallery(gallery: Ownership, state: str) -> None:
    """Mark the gallery as complete.

    Raises:
        JobError: another report has taken over the folder.
    """
    info = gallery.output.info(MARKER)
    check_owner(gallery)
    data = encode_json({"made_by": _MADE_BY, "state": state})
    if info is None or not gallery.output.replace(MARKER, data, info.version):
        raise JobError(f"another report is writing a gallery to {gallery.output.uri}: run this one again.")


def state_of(config: ReportConfig, run: LabelRun) -> str:
    """Return the SHA-256 (hex) of all that a gallery shows: configuration, classes, images, labels and findings."""
    shown = dataclasses.asdict(config)
    for name in ("storage", "ray", "status_seconds", "output"):
        del shown[name]
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
    for folder, names in ((config.audit, _AUDIT_FILES), (config.evaluation, (EVALUATION_FILE,))):
        if folder is not None:
            storage = Storage(folder, config.storage)
            content[folder] = [_digest(storage, name) for name in names]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def earlier_state(output: Storage, folders: tuple[str, ...]) -> str | None:
    """Return the state of the complete gallery that the folder holds, or None.

    Raises:
        ValueError: the folder holds something else; `folders` are those whose files a gallery removes.
    """
    if output.exists(MARKER):
        try:
            state = read_json(output, MARKER).get("state")
        except (FileNotFoundError, ValueError):
            return None
        return state if isinstance(state, str) else None
    if output.exists("index.html"):
        raise ValueError(f"{output.uri} holds an index.html that is no gallery of this job. Give an empty --output.")
    for folder in folders:
        if output.list(folder):
            raise ValueError(
                f"{output.describe(folder)} holds files of no gallery of this job. Give an empty --output."
            )
    return None


def _digest(storage: Storage, path: str) -> str | None:
    try:
        return hashlib.sha256(storage.read(path)).hexdigest()
    except FileNotFoundError:
        return None
