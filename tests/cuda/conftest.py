"""Fixtures of the tests on pretended CUDA: drawn scenes, and what the CPU makes of them."""

from __future__ import annotations

import pytest
from cuda_cases import Scenes, labeller

from wsss_ray.demo.scenes import draw_scene


@pytest.fixture(scope="session")
def scenes() -> Scenes:
    """Return four drawn scenes of three sizes, with the boxes and the labels of the CPU."""
    drawn = [draw_scene(index) for index in range(4)]
    return Scenes.labelled(labeller("cpu", "float32"), [one.image for one in drawn], [list(one.tags) for one in drawn])
