"""The initial weights of a student: fetched once per node, verified, identified by a digest."""

from __future__ import annotations

from pathlib import Path

from wsss_ray.addresses import is_uri, local_path, shown
from wsss_ray.classes import ClassSet
from wsss_ray.config import StorageConfig, StudentConfig
from wsss_ray.models.hub import hub_directory
from wsss_ray.models.student.sources import weights_source
from wsss_ray.storage.weights import fetch_directory, fetch_file, weights_digest


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
        return hub_directory(source.uri, source.revision, missing=_missing)
    if source.kind == "directory":
        return fetch_directory(source.uri, config=storage)
    return fetch_file(source.uri, sha256=source.sha256, config=storage)


def _missing(directory: Path) -> list[str]:
    return [] if any(directory.glob("*.safetensors")) else ["safetensors"]


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


def check_initial_weights(config: StudentConfig, classes: ClassSet, storage: StorageConfig) -> None:
    """Check local initial weights before a worker loads them: that they exist, their digest and their network.

    Weights in a store are only looked up: each node fetches and checks them itself.

    Raises:
        ValueError: the weights do not exist, are damaged, or belong to another network.
    """
    digest = student_weights_digest(config, storage)
    source = weights_source(config)
    if source is None or source.kind == "hub" or is_uri(source.uri):
        return
    path = local_path(source.uri)
    if source.sha256 is not None:
        fetch_file(source.uri, sha256=source.sha256, config=storage)  # compares the digest
    assert digest is not None, "there are weights"
    from wsss_ray.models.student.building import build_student  # noqa: PLC0415 - torch, which other weights save

    build_student(config, classes, weights=path)
