"""The weights of a job's models: what identifies them, and their copies on this node."""

from __future__ import annotations

from wsss_ray.config.shared import StorageConfig
from wsss_ray.models.protocols import Weights
from wsss_ray.storage.weights import fetch_directory, fetch_file, weights_digest


def identify(weights: Weights, config: StorageConfig) -> list[str]:
    """Return what identifies the weights in a run's identity: digests or versions, or a hub model's commit."""
    if weights.hub is not None:
        return [weights.hub]
    if weights.uri is not None:
        return [weights_digest(weights.uri, sha256=weights.sha256, config=config)]
    return [weights_digest(str(path), config=config) for path in weights.files]


def fetch(weights: Weights, config: StorageConfig) -> str | None:
    """Return the local copy of weights in a store, copied to this node first; None for those that are local.

    Raises:
        ValueError: a digest is missing or does not match.
        StorageError: the weights cannot be read.
    """
    if weights.uri is None:
        return None
    uri = weights.copied or weights.uri
    if weights.is_directory:
        return str(fetch_directory(uri, config=config))
    return str(fetch_file(uri, sha256=weights.sha256, config=config))
