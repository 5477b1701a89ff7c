"""The dry run's sample where its models fail."""

from pathlib import Path

import pytest
import ray.cloudpickle
from engine import stages
from engine.stages import LengthStage
from engine.test_run import write_shards

from wsss_ray.cluster import Pool, Resources
from wsss_ray.data.storage import Storage
from wsss_ray.engine.stage import StageSpec
from wsss_ray.engine.task import Task
from wsss_ray.errors import JobError
from wsss_ray.label_writing.sample import describe_sample

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
