"""The initial weights of a student: fetched once per node, verified, identified by a digest."""

from __future__ import annotations

from pathlib import Path

from wsss_ray.config import StorageConfig, StudentConfig
from wsss_ray.models.student.sources import weights_source
from wsss_ray.storage.redaction import shown
from wsss_ray.storage.weights import fetch_directory, fetch_file, fetch_hub, weights_digest

STUDENT_FILE = "student.safetensors"
"""Name of the trained student in the output of a training."""
STUDENT_DIGEST_FILE = f"{STUDENT_FILE}.sha256"
"""Name of the file beside it that holds its SHA-256."""


def fetch_student_weights(config: StudentConfig, storage: StorageConfig) -> Path | None:
    """Return the local path of the initial weights for `build_student`; None for a student with random weights.

    Raises:
        ValueError: the weights do not exist or have another digest.
        StorageError: the store cannot be reached.
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
    """Return what identifies the initial weights in a run's identity, without fetching remote ones.

    Raises:
        ValueError: the weights do not exist.
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
            f"student.weights: there is no {shown(source.uri)}. Give the path or URI of the weights that the student "
            f"starts from (student.init: {config.init}), or set student.init to none."
        ) from error
