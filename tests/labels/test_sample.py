"""The dry run's sample where its models fail."""

from pathlib import Path

import engine_stages as stages
import pytest
import ray.cloudpickle
from engine_runs import write_shards
from engine_stages import LengthStage

from wsss_ray.engine.resources import Pool, Resources
from wsss_ray.engine.stage import StageSpec
from wsss_ray.engine.task import Task
from wsss_ray.errors import JobError
from wsss_ray.labels.sample import describe_sample
from wsss_ray.storage.storage import Storage

ray.cloudpickle.register_pickle_by_value(stages)


def test_a_stage_that_raises_ends_the_job_with_its_name_and_reason(local_ray: Resources, tmp_path: Path) -> None:
    shards = write_shards(tmp_path, [[[b"raise"]]])
    with pytest.raises(JobError, match=r"^length failed on the sample: RuntimeError: this image cannot be worked on$"):
        describe_sample(
            [Task(unit=shards.units[0])],
            [StageSpec(name="length", make=LengthStage, pool=Pool(actors=1, cpus=0.3, gpus=0))],
            Storage(str(tmp_path)),
            asked=lambda _rows: [],
            with_work=lambda rows: rows,
            expected=lambda _device: None,
        )
