"""Check the weights of a labelling job's models in the driver."""

from __future__ import annotations

from wsss_ray.config.label import LabellerConfig
from wsss_ray.labels.weights import fetch, identify
from wsss_ray.models.registries import DETECTORS, SEGMENTERS


def check_weights(config: LabellerConfig) -> None:
    """Check the weights of both models before an actor loads them: local digests, and the segmenter's network.

    Raises:
        ValueError: weights are missing, damaged, or of another model.
        StorageError: a store cannot be read.
    """
    identify(DETECTORS.get(config.detector.type).weights(config.detector), config.storage)
    segmenter = SEGMENTERS.get(config.segmenter.type)
    weights = segmenter.weights(config.segmenter)
    identify(weights, config.storage)
    if weights.files:
        fetch(weights, config.storage)  # compares the digest
    segmenter.check(config.segmenter, weights)
