"""Refuse an output that is part of what the job reads, or that belongs to another job."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from wsss_ray.addresses import is_uri
from wsss_ray.config.shared import Input, StorageConfig
from wsss_ray.storage.storage import Storage

MARKERS = {
    "shards.json": ("shard",),
    "run.json": ("label", "predict", "train"),
    "evaluation.json": ("evaluate",),
    "audit.json": ("audit",),
    "gallery.json": ("report",),
    "export.json": ("export",),
    "pipeline.json": ("pipeline",),
}
"""File by which a folder is known to belong to a job -> the jobs that write it."""

RUN_FOLDERS = frozenset({"labels", "png", "soft", "profile", "checkpoints", "tensorboard"})
"""Folders of a run directory that its own job writes. Other jobs may have theirs beside them (`RUN/evaluation`)."""


class JobConfig(Protocol):
    """Fields that the configurations of all jobs have."""

    @property
    def output(self) -> str:
        """Path or URI of the output."""

    @property
    def storage(self) -> StorageConfig:
        """Object storage."""

    def inputs(self) -> tuple[Input, ...]:
        """Return what the job reads."""


def check_output(config: JobConfig, *, job: str) -> None:
    """Refuse an output that is, holds or lies in something that the job reads, or that another job has claimed.

    Links are resolved. Nothing is written.

    Args:
        config: the job's configuration.
        job: the job's name, as in MARKERS.

    Raises:
        ValueError: names the output, the input, and what to do.
    """
    output = Storage(config.output, config.storage)
    check_inputs(output, config.inputs())
    check_claim(output, job=job)


def check_claim(output: Storage, *, job: str) -> None:
    """Refuse an output that another job than `job` has claimed, or a local one in a folder that a run writes."""
    files = output.list()
    for marker, jobs in MARKERS.items():
        if marker in files and job not in jobs:
            raise ValueError(
                f"{output.uri} belongs to wsss-ray {' or '.join(jobs)} (it holds {marker}): give another --output."
            )
    if output.is_local:
        where = Path(os.path.realpath(output.uri))
        for folder, run in zip([where, *where.parents], where.parents, strict=False):
            if folder.name in RUN_FOLDERS and (run / "run.json").is_file():
                raise ValueError(f"{output.uri} lies in {folder}, which the run {run} writes: give another --output.")


def check_inputs(output: Storage, inputs: tuple[Input, ...]) -> None:
    """Refuse an output that is, holds or lies in one of the inputs; see `check_output`."""
    where = _resolve(output.uri, output.config)
    for source in inputs:
        there = _resolve(source.path, output.config)
        if not is_uri(there) and not Path(there).exists():
            continue  # the name of a hub's model, or a mistake that the job will report
        if where == there:
            relation = "is what"
        elif _is_below(there, where):
            relation = f"holds {source.path}, which"
        elif source.kind != "file" and _is_below(where, there) and not _is_own_folder(source, where, there, output):
            relation = f"lies in {source.path}, which"
        else:
            continue
        raise ValueError(f"the output {output.uri} {relation} {source.flag} reads: give another --output.")


def _resolve(path: str, config: StorageConfig) -> str:
    """Return a URI, or a local path with its links resolved."""
    if is_uri(path) and not path.startswith(("s3://", "s3a://")):
        return path.rstrip("/")
    storage = Storage(path, config)
    return os.path.realpath(storage.uri) if storage.is_local else storage.uri.rstrip("/")


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")


def _is_own_folder(source: Input, where: str, there: str, output: Storage) -> bool:
    """Return whether an output in a run directory is a folder beside those of the run."""
    if source.kind != "run" or where[len(there) + 1 :].split("/", maxsplit=1)[0] in RUN_FOLDERS:
        return False
    return Storage(source.path, output.config).exists("run.json")
