"""A job that finds nothing to do says so within seconds: its module imports neither PyTorch nor Ray Data."""

from __future__ import annotations

import subprocess
import sys

import pytest

from wsss_ray.cli import JOBS

HEAVY = ("torch", "torchvision", "transformers", "pandas", "ray.data", "ray.train")
PROBE = f"import sys, {{module}}; print([name for name in {HEAVY} if name in sys.modules])"


@pytest.mark.parametrize("name", sorted(JOBS.keys() - {"demo"}))
def test_a_job_s_module_imports_nothing_heavy(name: str) -> None:
    probe = PROBE.format(module=JOBS[name].module)
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
