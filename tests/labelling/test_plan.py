"""The stages of a labelling run: how many units an actor works on, and what they may hold."""

from __future__ import annotations

import functools

import pytest

from wsss_ray.classes import ClassSet
from wsss_ray.config import DetectorConfig, Device, LabelConfig, RayConfig, SegmenterConfig
from wsss_ray.engine.resources import Node, Resources
from wsss_ray.labelling.plan import decided, plan_stages


@pytest.mark.parametrize(("device", "gpus", "held"), [("cpu", None, 0.0), ("cpu", 1.0, 1.0), ("auto", None, 1.0)])
def test_models_on_the_cpu_hold_no_gpu_unless_they_shall(device: Device, gpus: float | None, held: float) -> None:
    resources = Resources(nodes=(Node(cpus=8.0, gpus=2.0),))
    models = {"detector": DetectorConfig(device=device), "segmenter": SegmenterConfig(device=device)}
    config = LabelConfig(input="in", output="out", ray=RayConfig(gpus_per_actor=gpus), **models)  # type: ignore[arg-type]
    (stage,) = plan_stages(decided(config, has_gpus=True), ClassSet.load("voc"), "apply", resources)
    assert stage.pool.gpus == held


@pytest.mark.parametrize(("gpus", "units", "decoded"), [(0.0, 3, 512), (2.0, 16, 96)])
def test_a_gpu_works_on_more_units_that_hold_as_much(gpus: float, units: int, decoded: int) -> None:
    resources = Resources(nodes=(Node(cpus=8.0, gpus=gpus),))
    (stage,) = plan_stages(LabelConfig(input="in", output="out"), ClassSet.load("voc"), "apply", resources)
    assert stage.calls_per_actor == units
    assert isinstance(stage.make, functools.partial)
    assert stage.make.args[0].decoded_mb == decoded
    assert 2.5 * 512 < units * decoded <= 3 * 512
