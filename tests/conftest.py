"""Fixtures that every test may use."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsss_ray.cluster import Resources, connect
from wsss_ray.config import RayConfig

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photos and awkward files, or a skip that says how to name it."""
    path = (REPOSITORY / os.environ.get("WSSS_SHARED", "../shared")).resolve()
    if not (path / "data").is_dir():
        pytest.skip(f"no test photos at {path}: set WSSS_SHARED to the folder that holds data/voc and data/coco")
    return path


@pytest.fixture(scope="session")
def local_ray() -> Iterator[Resources]:
    """One Ray of this machine's own for the whole test session: starting one takes seconds."""
    with connect(RayConfig()) as resources:
        yield resources
