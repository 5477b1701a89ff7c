"""Describe the prompts of a few images for a dry run."""

from __future__ import annotations

import pyarrow as pa

from wsss_ray.classes import ClassSet
from wsss_ray.config import LabelConfig
from wsss_ray.labels.weights import fetch
from wsss_ray.models.registries import DETECTORS

PROMPTS_SHOWN = 3


def describe_prompts(config: LabelConfig, classes: ClassSet, rows: pa.Table) -> list[str]:
    """Return a line for each of the first three image rows, with its prompts.

    Raises:
        ValueError: the detector cannot read a phrase of the class set.
    """
    kind = DETECTORS.get(config.detector.type)
    directory = fetch(kind.weights(config.detector), config.storage)
    shown = rows.slice(0, PROMPTS_SHOWN)
    prompts = kind.prompts(config.detector, classes, shown["tags"].to_pylist(), directory=directory)
    return [
        f"prompt    {image_id}: {' | '.join(texts) or 'no tags: background'}"
        for image_id, texts in zip(shown["image_id"].to_pylist(), prompts, strict=True)
    ]
