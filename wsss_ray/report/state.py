"""The marker of a gallery: what it was made from, and which report is writing it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import uuid
from dataclasses import dataclass
from typing import Any

from wsss_ray.config import ReportConfig
from wsss_ray.errors import JobError
from wsss_ray.labels.run import LabelRun
from wsss_ray.labels.summary import SUMMARY_FILE
from wsss_ray.report.overview import AUDIT_FILE, EVALUATION_FILE
from wsss_ray.storage.json_files import encode_json, read_json
from wsss_ray.storage.storage import Storage

MARKER = "gallery.json"
"""Marks a folder as a gallery. It holds the state of a complete gallery, or the writer of an unfinished one."""
GALLERY_VERSION = 4
"""Counts changes of the code that change galleries."""
_AUDIT_FILES = (AUDIT_FILE, "audit.parquet", "disagreements.parquet")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to write a gallery. A later report in the same folder takes it over. Pickled to Ray tasks."""

    output: Storage
    writer: str

    @classmethod
    def take(cls, output: Storage) -> Claim:
        """Mark the gallery as unfinished and written by this report."""
        claim = cls(output=output, writer=uuid.uuid4().hex)
        output.write(MARKER, _encode({"state": None, "writer": claim.writer}))
        return claim

    def check(self) -> None:
        """Raise a JobError if another report has taken over the folder."""
        if _read(self.output).get("writer") != self.writer:
            raise JobError(
                f"another report is writing a gallery to {self.output.uri}: this one ends here. Give each its own "
                "--output."
            )

    def finish(self, state: str) -> None:
        """Mark the gallery as complete.

        Raises:
            JobError: another report has taken over the folder.
        """
        info = self.output.info(MARKER)
        self.check()
        if info is None or not self.output.replace(MARKER, _encode({"state": state}), info.version):
            raise JobError(f"another report is writing a gallery to {self.output.uri}: run this one again.")


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
        state = _read(output).get("state")
        return state if isinstance(state, str) else None
    if output.exists("index.html"):
        raise ValueError(f"{output.uri} holds an index.html that is no gallery of this job. Give an empty --output.")
    for folder in folders:
        if output.list(folder):
            raise ValueError(
                f"{output.describe(folder)} holds files of no gallery of this job. Give an empty --output."
            )
    return None


def _encode(content: dict[str, Any]) -> bytes:
    return encode_json({"made_by": "wsss_ray report", **content})


def _read(output: Storage) -> dict[str, Any]:
    """Return the content of the marker; empty if it is damaged or does not exist."""
    try:
        return read_json(output, MARKER)
    except (FileNotFoundError, ValueError):
        return {}


def _digest(storage: Storage, path: str) -> str | None:
    try:
        return hashlib.sha256(storage.read(path)).hexdigest()
    except FileNotFoundError:
        return None
