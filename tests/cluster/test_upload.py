"""What `ray job submit --working-dir .` takes along, by Ray's own packaging: code and configurations, nothing else."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package
from repository import REPOSITORY


def pack(folder: Path, target: Path) -> list[str]:
    create_package(str(folder), target, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    with zipfile.ZipFile(target) as archive:
        return archive.namelist()


def test_this_repository_is_a_few_megabytes(tmp_path: Path) -> None:
    names = pack(REPOSITORY, tmp_path / "upload.zip")
    assert {name.split("/")[0] for name in names} == {"jobs", "wsss_ray"}
    assert (tmp_path / "upload.zip").stat().st_size < 20 * 2**20  # Ray refuses 500 MB; the demo's weights are 10
    tracked = subprocess.run(
        ["git", "ls-files", "jobs", "wsss_ray"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if tracked.returncode == 0:
        there = {name for name in tracked.stdout.splitlines() if (REPOSITORY / name).exists()}
        assert there <= set(names), "a file that the jobs may need stays at home"


PLANTED = [
    ".env",
    ".git/config",
    ".venv/lib/big.so",
    ".aws/credentials",
    "data/photo.jpg",
    "weights/sam_vit_h_4b8939.pth",
    "runs/demo/labels/shard.parquet",
    "tests/test_x.py",
    "aws.env",
    "id.pem",
    "wsss_ray/.env",
    "jobs/server.pem",
    "configs/aws_credentials.csv",
    "wsss_ray/__pycache__/x.pyc",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working copy as a careless user would have it."""
    root = tmp_path / "copy"
    for name in (*PLANTED, "jobs/label.py", "wsss_ray/demo/weights/model.safetensors", "configs/mine.yaml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("AKIAIOSFODNN7EXAMPLE")
    for name in (".rayignore", ".gitignore"):
        shutil.copy(REPOSITORY / name, root)
    return root


def test_data_weights_runs_and_secrets_stay_at_home(folder: Path, tmp_path: Path) -> None:
    names = pack(folder, tmp_path / "upload.zip")
    assert sorted(names) == ["configs/mine.yaml", "jobs/label.py", "wsss_ray/demo/weights/model.safetensors"]


def test_without_the_file_they_would_go_along(folder: Path, tmp_path: Path) -> None:
    """The test above can fail."""
    (folder / ".rayignore").unlink()
    assert {"aws.env", "weights/sam_vit_h_4b8939.pth", "data/photo.jpg"} <= set(pack(folder, tmp_path / "upload.zip"))
