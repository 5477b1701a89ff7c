"""Image shards of drawn scenes, a student's file, and the configuration of runs on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from prediction_cases import CLASSES, draw_rows, make_student

from wsss_ray.config import PredictConfig, RayConfig
from wsss_ray.models.student.files import encode_student
from wsss_ray.models.student.network import StudentNetwork
from wsss_ray.shards.image_encoding import encode_image_shard, shard_name
from wsss_ray.storage.storage import Storage


@pytest.fixture(scope="session")
def scene_rows() -> pa.Table:
    """Return six scenes; see `draw_rows`."""
    return draw_rows()


@pytest.fixture(scope="session")
def scenes(scene_rows: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the six scenes as two units."""
    folder = tmp_path_factory.mktemp("scenes")
    groups = [scene_rows.slice(0, 3), scene_rows.slice(3, 3)]
    data = encode_image_shard(groups, exif="ignore", label_space=CLASSES.label_space_digest, classes="demo")
    Storage(str(folder)).write(shard_name(0, 1), data)
    return folder


@pytest.fixture(scope="session")
def student() -> StudentNetwork:
    """Return the student of the runs."""
    return make_student(seed=0)


@pytest.fixture(scope="session")
def student_run(student: StudentNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the part of a training's output that predictions need."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "student.safetensors").write_bytes(encode_student(student))
    return folder


@pytest.fixture(scope="session")
def configure(scenes: Path, student_run: Path) -> Callable[..., PredictConfig]:
    """Return `configure(output, **fields)`: the configuration of a run."""

    def make(output: Path | str, **fields: object) -> PredictConfig:
        base = {"input": str(scenes), "student": str(student_run), "status_seconds": 60, "ray": RayConfig(actors=1)}
        return PredictConfig(**{**base, "output": str(output), **fields})  # type: ignore[arg-type]

    return make
