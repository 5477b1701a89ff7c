"""The dry run: the time that it estimates, and a sample on which the models fail."""

from pathlib import Path

import engine_stages as stages
import pytest
import ray.cloudpickle
from engine_runs import write_shards
from engine_stages import LengthStage

from wsss_ray.engine.resources import Pool, Resources
from wsss_ray.engine.stage import StageSpec
from wsss_ray.engine.task import UnitTask
from wsss_ray.errors import JobError
from wsss_ray.labels.sample import Timing, busiest, describe_sample, estimate
from wsss_ray.storage.storage import Storage

ray.cloudpickle.register_pickle_by_value(stages)


def test_a_stage_that_raises_ends_the_job_with_its_name_and_reason(local_ray: Resources, tmp_path: Path) -> None:
    shards = write_shards(tmp_path, [[[b"raise"]]])
    with pytest.raises(JobError, match=r"^length failed on the sample: RuntimeError: this image cannot be worked on$"):
        describe_sample(
            [UnitTask(unit=shards.units[0])],
            [StageSpec(name="length", make=LengthStage, pool=Pool(actors=1, cpus=0.3, gpus=0))],
            Storage(str(tmp_path)),
            describe_rows=lambda _rows: [],
            with_work=lambda rows: rows,
            expected=lambda _device: None,
        )


@pytest.mark.parametrize(
    ("sizes", "actors", "images"),
    [
        ([8], 2, 8),
        ([8], 1, 8),
        ([8, 8], 2, 8),
        ([8, 8, 8], 2, 16),
        ([8, 8, 3], 2, 11),
        ([32] * 100, 8, 416),
        ([], 3, 0),
    ],
)
def test_a_unit_is_not_divided_among_actors(sizes: list[int], actors: int, images: int) -> None:
    assert busiest(sizes, actors) == images
    timing = Timing(stage="label", actors=actors, seconds=2.0, loading=1.0, device="", row_bytes=1.0)
    assert estimate([timing], sizes) == 2.0 * images


def test_the_slowest_of_two_stages_decides() -> None:
    fast = Timing(stage="detect", actors=1, seconds=0.5, loading=1.0, device="", row_bytes=1.0)
    slow = Timing(stage="segment", actors=3, seconds=3.0, loading=1.0, device="", row_bytes=1.0)
    assert estimate([fast, slow], [4, 4, 4]) == 12.0
    assert estimate([fast, slow], [4] * 6) == 24.0
