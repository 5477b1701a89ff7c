"""What a labelling run is going to do: its identity, its pools, and the lines that say so before it starts."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

from wsss_ray.classes import ClassSet
from wsss_ray.config import LabelConfig
from wsss_ray.engine.resources import Pool, Resources, check_pools, model_pool
from wsss_ray.engine.stage import Stage, StageSpec
from wsss_ray.labels.decoded_images import Exif
from wsss_ray.labels.precision import resolve
from wsss_ray.models.detector.paths import hub_commit, model_directory
from wsss_ray.models.sam.weights import checkpoint_path, files_of
from wsss_ray.shards.image_shards import ShardSet
from wsss_ray.storage.weights import is_uri, weights_digest

ALGORITHM_VERSION = 1
"""Counts changes of the code that change labels on purpose."""


def identity(config: LabelConfig, classes: ClassSet, shards: ShardSet, *, has_gpus: bool) -> dict[str, Any]:
    """All that changes labels, as JSON values; what only changes speed or place is left out.

    Two runs of equal identity may work on one output.
    """
    detector = dataclasses.asdict(config.detector)
    segmenter = dataclasses.asdict(config.segmenter)
    for section in (detector, segmenter):
        section.pop("batch_size")
        section["device"], section["precision"] = resolve(section["device"], section["precision"], has_gpus=has_gpus)
    segmenter.pop("boxes_per_chunk")
    segmenter.pop("compile")
    segmenter.pop("checkpoint")
    detector.pop("model")
    detector.pop("revision")
    detector["weights"] = _detector_weights(config)
    segmenter["weights"] = _segmenter_weights(config)
    segmenter.pop("sha256")
    return {
        "algorithm": ALGORITHM_VERSION,
        "classes": {
            "name": classes.name,
            "label_space": classes.label_space_digest,
            "phrases": {name: list(classes.phrases_of(name)) for name in classes.names},
        },
        "detector": detector,
        "segmenter": segmenter,
        "fusion": dataclasses.asdict(config.fusion),
        "shards": shards.digest,
    }


def _detector_weights(config: LabelConfig) -> str:
    model = config.detector.model
    if is_uri(model):
        return weights_digest(model, config=config.storage)
    if model == "demo" or Path(model).expanduser().is_dir():
        return weights_digest(str(model_directory(config.detector)), config=config.storage)
    return f"{model}@{hub_commit(config.detector)}"


def _segmenter_weights(config: LabelConfig) -> list[str]:
    settings = config.segmenter
    if settings.checkpoint is not None and is_uri(settings.checkpoint):
        return [weights_digest(settings.checkpoint, sha256=settings.sha256, config=config.storage)]
    files = files_of(settings.model, checkpoint_path(settings))
    return [weights_digest(str(path), config=config.storage) for path in files]


def stage_specs(
    config: LabelConfig, classes: ClassSet, shards: ShardSet, resources: Resources
) -> tuple[StageSpec, ...]:
    """The stages and their pools, checked against the cluster.

    Raises:
        ValueError: the pools can never be placed.
    """
    exif = shards.units[0].exif
    if config.placement == "fused":
        pools = [model_pool(config.ray, resources)]
        makers = [("label", _make_label)]
    else:
        segmenters, detectors = _split_pools(config, resources)
        pools = [detectors, segmenters]
        makers = [("detect", _make_detect), ("segment", _make_segment)]
    check_pools(pools, resources, config.ray)
    return tuple(
        StageSpec(name=name, make=functools.partial(make, config, classes, exif), pool=pool)
        for (name, make), pool in zip(makers, pools, strict=True)
    )


def _split_pools(config: LabelConfig, resources: Resources) -> tuple[Pool, Pool]:
    """Segmenters and detectors: SAM takes nine tenths of the arithmetic, so detectors get a quarter of the places."""
    total = config.ray.actors or model_pool(config.ray, resources).actors
    detectors = config.ray.detector_actors or max(1, total // 4)
    segmenters = config.ray.actors or max(1, total - detectors)
    shared = model_pool(config.ray, resources, actors=detectors + segmenters)
    return dataclasses.replace(shared, actors=segmenters), dataclasses.replace(shared, actors=detectors)


def _make_label(config: LabelConfig, classes: ClassSet, exif: Exif) -> Stage:
    from wsss_ray.labelling.stages import LabelStage  # noqa: PLC0415 - the driver needs no models

    return LabelStage(config, classes, exif)


def _make_detect(config: LabelConfig, classes: ClassSet, exif: Exif) -> Stage:
    from wsss_ray.labelling.stages import DetectStage  # noqa: PLC0415 - the driver needs no models

    return DetectStage(config, classes, exif)


def _make_segment(config: LabelConfig, classes: ClassSet, exif: Exif) -> Stage:
    from wsss_ray.labelling.stages import SegmentStage  # noqa: PLC0415 - the driver needs no models

    return SegmentStage(config, classes, exif)


def describe_models(config: LabelConfig, classes: ClassSet) -> list[str]:
    """Lines of the plan about classes and models."""
    assist = "on" if classes.assist_words else "off"
    return [
        f"classes   {classes.name}: {len(classes.classes)} and background, assist words {assist}",
        f"detector  {config.detector.model}, threshold {config.detector.box_threshold:g}",
        f"segmenter SAM {config.segmenter.model}, paint by {config.fusion.paint}",
    ]
