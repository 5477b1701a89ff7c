"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photos and awkward files, or a skip that says how to name it."""
    path = (REPOSITORY / os.environ.get("WSSS_SHARED", "../shared")).resolve()
    if not (path / "data").is_dir():
        pytest.skip(f"no test photos at {path}: set WSSS_SHARED to the folder that holds data/voc and data/coco")
    return path
