"""Where a student's weights are, for the jobs: the initial ones, fetched once a node, checked, named by a digest."""

from __future__ import annotations

from pathlib import Path

from wsss_ray.config import StorageConfig, StudentConfig
from wsss_ray.models.student.sources import weights_source
from wsss_ray.storage.redaction import masked
from wsss_ray.storage.weights import fetch_directory, fetch_file, fetch_hub, weights_digest

STUDENT_FILE = "student.safetensors"
"""Name of the trained student in the output of a training."""


def fetch_student_weights(config: StudentConfig, storage: StorageConfig) -> Path | None:
    """Local path of the initial weights, as `build_student` takes it; None where the student starts from nothing.

    Raises ValueError for weights that do not exist or have another digest, StorageError for a store out of reach.
    """
    source = weights_source(config)
    if source is None:
        return None
    if source.kind == "hub":
        assert source.revision is not None
        return fetch_hub(source.uri, revision=source.revision)
    if source.kind == "directory":
        return fetch_directory(source.uri, config=storage)
    return fetch_file(source.uri, sha256=source.sha256, config=storage)


def student_weights_digest(config: StudentConfig, storage: StorageConfig) -> str | None:
    """What identifies the initial weights, for a run's identity, without fetching remote ones.

    Raises ValueError for weights that do not exist.
    """
    source = weights_source(config)
    if source is None:
        return None
    if source.revision is not None:
        return source.revision
    try:
        return weights_digest(source.uri, sha256=source.sha256, config=storage)
    except FileNotFoundError as error:
        raise ValueError(
            f"student.weights: there is no {masked(source.uri)}. Give the path or URI of the weights that the student "
            f"starts from (student.init: {config.init}), or set student.init to none."
        ) from error
