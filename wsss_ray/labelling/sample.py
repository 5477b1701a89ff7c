"""The dry run's prompts: what the detector will be asked about a few images."""

from __future__ import annotations

import pyarrow as pa

from wsss_ray.classes import ClassSet
from wsss_ray.config import LabelConfig
from wsss_ray.storage.weights import fetch_directory, is_uri

PROMPTS_SHOWN = 3


def describe_prompts(config: LabelConfig, classes: ClassSet, rows: pa.Table) -> list[str]:
    """A line for each of the first three image rows, with its prompts; ValueError for a phrase of any class that the
    detector cannot read, which the actors of a run would refuse only once they have loaded it."""
    from wsss_ray.models.detector.files import load_tokenizer  # noqa: PLC0415 - only a dry run needs them here
    from wsss_ray.models.detector.prompts import build_prompts, check_phrases  # noqa: PLC0415

    tokenizer = load_tokenizer(config.detector, _detector_directory(config))
    check_phrases(classes, tokenizer, max_tokens=tokenizer.model_max_length)
    shown = rows.slice(0, PROMPTS_SHOWN)
    lines = []
    for image_id, tags in zip(shown["image_id"].to_pylist(), shown["tags"].to_pylist(), strict=True):
        built = build_prompts(tags, classes, tokenizer, max_tokens=tokenizer.model_max_length)
        text = " | ".join(prompt.text for prompt in built) or "no tags: background"
        lines.append(f"prompt    {image_id}: {text}")
    return lines


def _detector_directory(config: LabelConfig) -> str | None:
    model = config.detector.model
    return str(fetch_directory(model, config=config.storage)) if is_uri(model) else None
