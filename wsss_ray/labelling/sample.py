"""The dry run's sample: prompts of a few images, and a few images timed with the real models."""

from __future__ import annotations

import time

import pyarrow as pa
import ray

from wsss_ray.config import LabelConfig
from wsss_ray.data.shards import read_unit
from wsss_ray.data.storage import Storage
from wsss_ray.data.weights import fetch_directory, is_uri
from wsss_ray.engine import Meter, StageSpec, format_seconds
from wsss_ray.engine.worker import READ_COLUMNS
from wsss_ray.labelling.plan import Plan

PROMPTS_SHOWN = 3
IMAGES_TIMED = 4


def describe_sample(plan: Plan, images: Storage) -> str:
    """Prompts of three images, and the hours that the run will take by the time of four images. Labels nothing."""
    if not plan.tasks:
        return "nothing to do: all images are labelled"
    rows = read_unit(images, plan.tasks[0].unit, columns=READ_COLUMNS)
    lines = [f"prompt    {image_id}: {text}" for image_id, text in _prompts(plan, rows)]
    sample = rows.filter([bool(tags) for tags in rows["tags"].to_pylist()]).slice(0, IMAGES_TIMED)
    if sample.num_rows == 0:
        return "\n".join([*lines, "estimate  none: no image of the first unit has a tag, so no model runs"])
    sample = sample.append_column("error", pa.nulls(sample.num_rows, pa.string()))
    slowest = 0.0
    for spec in plan.stages:
        timed = ray.remote(_time_stage).options(num_cpus=spec.pool.cpus, num_gpus=spec.pool.gpus)
        sample, seconds, loading = ray.get(timed.remote(spec, sample))
        per_image = seconds / sample.num_rows
        slowest = max(slowest, per_image / spec.pool.actors)
        timing = f"{per_image:.3f} s per image and actor, warm, {sample.num_rows} images"
        lines.append(f"timed     {spec.name}: {timing}; models loaded in {loading:.1f} s")
    estimate = format_seconds(plan.images_to_do * slowest)
    lines.append(f"estimate  {estimate} for {plan.images_to_do:,} images, loading and the last units' tail apart")
    return "\n".join(lines)


def _prompts(plan: Plan, rows: pa.Table) -> list[tuple[str, str]]:
    from wsss_ray.models.detector_files import load_tokenizer  # noqa: PLC0415 - only a dry run needs them here
    from wsss_ray.models.prompts import build_prompts  # noqa: PLC0415

    tokenizer = load_tokenizer(plan.config.detector, _detector_directory(plan.config))
    prompts = []
    for image_id, tags in zip(rows["image_id"].to_pylist(), rows["tags"].to_pylist(), strict=True):
        built = build_prompts(tags, plan.classes, tokenizer, max_tokens=tokenizer.model_max_length)
        prompts.append((image_id, " | ".join(prompt.text for prompt in built) or "no tags: background"))
        if len(prompts) == PROMPTS_SHOWN:
            break
    return prompts


def _detector_directory(config: LabelConfig) -> str | None:
    model = config.detector.model
    return str(fetch_directory(model, config=config.storage)) if is_uri(model) else None


def _time_stage(spec: StageSpec, rows: pa.Table) -> tuple[pa.Table, float, float]:
    """Run a stage on the rows twice in a process of its pool's size.

    Returns:
        Its result, the seconds of the second run, and those of loading.
    """
    start = time.perf_counter()
    stage = spec.make()
    loaded = time.perf_counter()
    stage(rows, Meter())
    warm = time.perf_counter()
    result = stage(rows, Meter())
    return result, time.perf_counter() - warm, loaded - start
