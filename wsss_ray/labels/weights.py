"""Identify the weights of a run's models, and copy them to this node."""

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
    """Return the local path of weights that are in a store, copied to this node first, or whose digest was compared.

    None for others: the model finds those itself.

    Raises:
        ValueError: a digest is missing or does not match.
        StorageError: the weights cannot be read.
    """
    if weights.uri is None and weights.sha256 is None:
        return None
    if weights.uri is None:
        return str(fetch_file(str(weights.files[0]), sha256=weights.sha256, config=config))
    uri = weights.copied or weights.uri
    if weights.is_directory:
        return str(fetch_directory(uri, config=config))
    return str(fetch_file(uri, sha256=weights.sha256, config=config))
