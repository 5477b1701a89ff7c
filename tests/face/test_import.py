"""`import wsss_ray` is quick, and its public names are there."""

import json
import subprocess
import sys

import pytest

import wsss_ray

pytestmark = pytest.mark.processes

HEAVY = ("torch", "ray", "transformers", "segment_anything", "pyarrow", "numpy")
PROGRAM = f"""
import json, sys
import wsss_ray
print(json.dumps([name for name in {HEAVY} if name in sys.modules]))
from wsss_ray import ClassSet, Instance, LabelRow, LabelledImage
print(json.dumps([name for name in ("torch", "ray", "transformers") if name in sys.modules]))
from wsss_ray import Labeller
Labeller("demo")
print(json.dumps([name for name in ("ray", "transformers") if name in sys.modules]))
"""


def test_importing_the_package_loads_no_library_of_models() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [[], [], []]


def test_every_public_name_is_there_and_documented() -> None:
    for name in wsss_ray.__all__:
        assert getattr(wsss_ray, name).__doc__, name
    assert set(wsss_ray.__all__) == set(dir(wsss_ray))
