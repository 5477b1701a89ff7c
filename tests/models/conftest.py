"""Fixtures of the models' tests."""

from pathlib import Path

import pytest
import random_models


@pytest.fixture(scope="session")
def detectors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the directory of a random detector of each family."""
    seeds = {"grounding-dino": 3, "mm-grounding-dino": 8}
    return {
        family: random_models.write_detector(tmp_path_factory.mktemp(family), family, seed=seed)
        for family, seed in seeds.items()
    }
