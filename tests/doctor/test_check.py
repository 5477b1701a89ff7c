"""The doctor on a real Ray, and its results for nodes that differ."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from repository import REPOSITORY

from wsss_ray.config import DetectorConfig, DoctorConfig, SegmenterConfig
from wsss_ray.doctor.check import _compare, _NodeAnswer, clock
from wsss_ray.doctor.job import run
from wsss_ray.doctor.results import CheckResult
from wsss_ray.engine.resources import Resources
from wsss_ray.errors import JobError

MODELS = {"detector": DetectorConfig(model="demo"), "segmenter": SegmenterConfig(model="tiny"), "classes": "demo"}


def test_a_cluster_that_can_run_the_job_passes(
    local_ray: Resources, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(DoctorConfig(output=str(tmp_path / "run"), **MODELS))  # type: ignore[arg-type]
    printed = capsys.readouterr().out
    assert "  ok       output" in printed
    assert "  ok       segmenter weights" in printed
    assert "error" not in printed
    assert not (tmp_path / "run").exists(), "nothing is left of the check"


def test_a_job_that_would_fail_ends_with_an_error(
    local_ray: Resources, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(JobError, match="1 checks of nodes failed"):
        run(DoctorConfig(input=str(tmp_path), **MODELS))  # type: ignore[arg-type]
    assert "give the folder that `wsss-ray shard` wrote" in capsys.readouterr().out


BUSY = """
import ray
from wsss_ray.config import StorageConfig
from wsss_ray.doctor.check import _ask
from wsss_ray.doctor.node import NodeChecks, installed

ray.init(num_cpus=2, num_gpus=1, include_dashboard=False)

@ray.remote(num_gpus=1)
class Job:
    def ready(self):
        return True

job = Job.remote()
ray.get(job.ready.remote())
checks = NodeChecks(versions=installed(), weights={}, output=None, token="", input=None, storage=StorageConfig())
for tiers in (("bfloat16",), ()):
    (found,) = _ask(ray.nodes(), checks, tiers, 20.0).values()
    assert not isinstance(found.answer, str), found.answer
    print([(one.check, one.state, one.found) for one in found.gpus])
"""


@pytest.mark.processes
def test_gpus_in_use_are_a_warning_and_the_rest_of_the_node_is_checked() -> None:
    done = subprocess.run([sys.executable, "-c", BUSY], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [
        "[('GPU', 'warning', 'not checked: in use for the 20 s of the check')]",
        "[('GPU', 'ok', '1 that this job does not use')]",
    ]


@pytest.mark.parametrize(("skew", "state"), [(0.0, "ok"), (59.0, "ok"), (61.0, "warning"), (901.0, "error")])
def test_clocks_are_compared_with_the_driver_s(skew: float, state: str) -> None:
    assert clock(skew).state == state


def test_nodes_with_other_weights_and_without_an_answer_are_named() -> None:
    good = CheckResult(check="GPU", found="none that Ray counts")
    nodes = {
        "10.0.0.1": _NodeAnswer(answer=(0.0, {"segmenter": ["a" * 64]}, []), gpus=[good]),
        "10.0.0.2": _NodeAnswer(answer=(0.0, {"segmenter": ["b" * 64]}, []), gpus=[good]),
        "10.0.0.3": _NodeAnswer(answer="no answer within 120 s", gpus=[good]),
    }
    groups = {group.name: group for group in _compare(nodes)}
    errors = {name: [one.check for one in group.results if one.state == "error"] for name, group in groups.items()}
    assert errors == {"10.0.0.1": [], "10.0.0.2": ["segmenter weights"], "10.0.0.3": ["answer"]}
