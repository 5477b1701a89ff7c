"""The stages of a labelling run: how many units an actor works on, and what they may hold."""

from __future__ import annotations

import functools

import pytest

from wsss_ray.classes import ClassSet
from wsss_ray.config import LabelConfig
from wsss_ray.engine.resources import Node, Resources
from wsss_ray.labelling.plan import plan_stages


@pytest.mark.parametrize(("gpus", "units", "decoded"), [(0.0, 3, 512), (2.0, 16, 96)])
def test_a_gpu_works_on_more_units_that_hold_as_much(gpus: float, units: int, decoded: int) -> None:
    resources = Resources(nodes=(Node(cpus=8.0, gpus=gpus),))
    (stage,) = plan_stages(LabelConfig(input="in", output="out"), ClassSet.load("voc"), "apply", resources)
    assert stage.calls_per_actor == units
    assert isinstance(stage.make, functools.partial)
    assert stage.make.args[0].decoded_mb == decoded
    assert 2.5 * 512 < units * decoded <= 3 * 512
