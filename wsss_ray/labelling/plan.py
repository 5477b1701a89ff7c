"""The plan of a labelling run: its identity, its stages and pools, and the lines that describe the models."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from wsss_ray.classes import ClassSet
from wsss_ray.config import DetectorConfig, LabelConfig, SegmenterConfig
from wsss_ray.config.models import DETECTOR_SETTINGS, SEGMENTER_SETTINGS
from wsss_ray.engine.resources import Pool, Resources, check_pools, model_pool, without_gpus
from wsss_ray.engine.stage import CALLS_PER_ACTOR, Stage, StageSpec
from wsss_ray.labels.decoded_images import Exif
from wsss_ray.labels.weights import identify
from wsss_ray.models.precision import decide
from wsss_ray.models.registries import DETECTORS, SEGMENTERS
from wsss_ray.shards.image_shards import ShardSet

GPU_UNITS = 16
"""Units that an actor with a GPU works on at once. The detector takes images of equal size from all that wait: of
some 500 images, several have the same. Together they hold as many decoded pixels as the units of another actor."""
ALGORITHM_VERSION = 1
"""Number that is raised when a change of the code changes labels on purpose."""


def decided(config: LabelConfig, *, has_gpus: bool, has_bfloat16: bool = True) -> LabelConfig:
    """Return the configuration with the device and the precision of both models, in place of `auto`."""
    have = {"has_gpus": has_gpus, "has_bfloat16": has_bfloat16}
    detector, segmenter = decide(config.detector, **have), decide(config.segmenter, **have)
    ray = config.ray if "cuda" in (detector.device, segmenter.device) else without_gpus(config.ray)
    return dataclasses.replace(config, detector=detector, segmenter=segmenter, ray=ray)


def identity(config: LabelConfig, classes: ClassSet, shards: ShardSet) -> dict[str, Any]:
    """Return all settings that change labels, as JSON values, without those of speed or placement.

    Runs of equal identity may write to the same output. Device and precision are `decided`.
    """
    return {
        "algorithm": ALGORITHM_VERSION,
        "classes": {
            "name": classes.name,
            "label_space": classes.label_space_digest,
            "phrases": {name: list(classes.phrases_of(name)) for name in classes.names},
        },
        "detector": _detector_identity(config),
        "segmenter": _segmenter_identity(config),
        "fusion": dataclasses.asdict(config.fusion),
        **({"columns": sorted(config.columns)} if config.columns else {}),
        "shards": shards.digest,
    }


def _detector_identity(config: LabelConfig) -> dict[str, Any]:
    settings = config.detector
    kind = DETECTORS.get(settings.type)
    unused = _unused(DETECTOR_SETTINGS, kind.settings)
    section = _section(settings, leave_out=("batch_size", "model", "revision", *unused))
    (section["weights"],) = identify(kind.weights(settings), config.storage)
    return section


def _segmenter_identity(config: LabelConfig) -> dict[str, Any]:
    settings = config.segmenter
    kind = SEGMENTERS.get(settings.type)
    speed = ("batch_size", "boxes_per_chunk", "compile")
    unused = _unused(SEGMENTER_SETTINGS, kind.settings)
    section = _section(settings, leave_out=(*speed, "checkpoint", "sha256", *unused))
    section["weights"] = identify(kind.weights(settings), config.storage)
    return section


def _unused(names: tuple[str, ...], used: frozenset[str]) -> list[str]:
    return [name for name in names if name not in used]


def _section(settings: DetectorConfig | SegmenterConfig, *, leave_out: tuple[str, ...]) -> dict[str, Any]:
    """Return the settings of a model that change labels; type, kernels and options only where they are not default."""
    section = {name: value for name, value in dataclasses.asdict(settings).items() if name not in leave_out}
    assert "auto" not in (section["device"], section["precision"]), "the driver decides before it claims an output"
    for name in ("type", "kernels", "options"):
        if name in section and section[name] == getattr(type(settings)(), name):
            del section[name]
    return section


def stage_specs(
    config: LabelConfig, classes: ClassSet, shards: ShardSet, resources: Resources
) -> tuple[StageSpec, ...]:
    """Return the stages and their pools, after a check against the cluster.

    Raises:
        ValueError: the cluster can never hold the pools.
    """
    return plan_stages(config, classes, shards.units[0].exif, resources)


def plan_stages(config: LabelConfig, classes: ClassSet, exif: Exif, resources: Resources) -> tuple[StageSpec, ...]:
    """Return the stages for image shards of an orientation rule; see `stage_specs`."""
    if config.placement == "fused":
        pools = [model_pool(config.ray, resources)]
        makers = [("label", _make_label)]
    else:
        segmenters, detectors = _split_pools(config, resources)
        pools = [detectors, segmenters]
        makers = [("detect", _make_detect), ("segment", _make_segment)]
    check_pools(pools, resources, config.ray)
    specs = []
    for (name, make), pool in zip(makers, pools, strict=True):
        units = GPU_UNITS if pool.gpus else CALLS_PER_ACTOR
        share = dataclasses.replace(config, decoded_mb=max(1, config.decoded_mb * CALLS_PER_ACTOR // units))
        made = functools.partial(make, share, classes, exif)
        specs.append(StageSpec(name=name, make=made, pool=pool, calls_per_actor=units))
    return tuple(specs)


def _split_pools(config: LabelConfig, resources: Resources) -> tuple[Pool, Pool]:
    """Return the pools of segmenters and detectors. By default a quarter of the actors are detectors.

    SAM takes nine tenths of the arithmetic.
    """
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
    """Return the lines of the plan about classes and models."""
    assist = "on" if classes.assist_words else "off"
    return [
        f"classes   {classes.name}: {len(classes.classes)} and background, assist words {assist}",
        f"detector  {config.detector.type} {config.detector.model}, threshold {config.detector.box_threshold:g}",
        f"segmenter {config.segmenter.type} {config.segmenter.model}, paint by {config.fusion.paint}",
        *_describe_unused(config.detector, DETECTOR_SETTINGS, DETECTORS.get(config.detector.type).settings),
        *_describe_unused(config.segmenter, SEGMENTER_SETTINGS, SEGMENTERS.get(config.segmenter.type).settings),
    ]


def _describe_unused(
    settings: DetectorConfig | SegmenterConfig, names: tuple[str, ...], used: frozenset[str]
) -> list[str]:
    """Return the line that names settings that were changed but that the model does not use, if there are any."""
    default = type(settings)()
    changed = [name for name in _unused(names, used) if getattr(settings, name) != getattr(default, name)]
    return [f"not used by {settings.type}: {', '.join(changed)}"] if changed else []
