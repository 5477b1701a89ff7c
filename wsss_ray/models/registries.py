"""The registries of models and fusion rules. Importing this module imports none of them."""

from __future__ import annotations

from wsss_ray.models.protocols import Detector, FusionRule, Segmenter
from wsss_ray.registry import Registry

DETECTORS: Registry[type[Detector]] = Registry(
    kind="detector",
    group="wsss_ray.detectors",
    built_in={"grounding-dino": "wsss_ray.models.detector.grounding_dino"},
)
SEGMENTERS: Registry[type[Segmenter]] = Registry(
    kind="segmenter",
    group="wsss_ray.segmenters",
    built_in={"sam": "wsss_ray.models.sam.sam"},
)
FUSION_RULES: Registry[type[FusionRule]] = Registry(
    kind="fusion rule",
    group="wsss_ray.fusion_rules",
    built_in=dict.fromkeys(("detection", "score", "area", "prob"), "wsss_ray.models.fusion"),
)
