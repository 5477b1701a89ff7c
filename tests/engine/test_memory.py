"""Memory that a failed attempt has freed."""

import os
import subprocess
import sys

from wsss_ray.engine.own_ray import WORKER_ENVIRONMENT

PROGRAM = """
import resource
from pathlib import Path
from wsss_ray.engine.worker import _return_memory
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
before = resident()
pieces = [bytes(100_000) for _ in range(3000)]
del pieces
kept = resident() - before
_return_memory()
print(kept, resident() - before)
"""


def test_it_goes_back_to_the_machine() -> None:
    """By the allocator's settings of a worker, it would be kept."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=os.environ | WORKER_ENVIRONMENT, capture_output=True, text=True, check=True
    )
    kept, after = map(float, done.stdout.split())
    assert kept > 150
    assert after < 30
