"""The run that export tests share."""

from pathlib import Path

import pytest
from export_cases import MADE, Run, write_made


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of MADE: three units."""
    return write_made(tmp_path, MADE)
