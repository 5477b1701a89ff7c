"""An error that Ray wrapped is explained by type and text of what was raised."""

from typing import NoReturn

import pytest
import ray
from ray.exceptions import RayError

from wsss_ray.engine.ray_data import explain, set_data_context
from wsss_ray.engine.resources import Resources


def test_an_error_in_a_task_of_ray_data_is_told_by_its_own_text(local_ray: Resources) -> None:
    def fail(_: object) -> NoReturn:
        raise KeyError("a defect")

    set_data_context()
    with pytest.raises(RayError) as caught:
        ray.data.range(1).map_batches(fail).materialize()
    assert explain(caught.value) == "KeyError: 'a defect'"


def test_an_error_in_an_actor_s_start_is_told_by_its_own_text(local_ray: Resources) -> None:
    class Fails:
        def __init__(self) -> None:
            raise ValueError("no such model")

        def work(self) -> None:
            """Never runs."""

    with pytest.raises(RayError) as caught:
        ray.get(ray.remote(Fails).remote().work.remote())
    assert explain(caught.value) == "ValueError: no such model"
