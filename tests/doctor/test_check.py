"""The doctor on a real Ray, and its results for nodes that differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsss_ray.config import DetectorConfig, DoctorConfig, SegmenterConfig
from wsss_ray.doctor.check import _compare, clock
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


@pytest.mark.parametrize(("skew", "state"), [(0.0, "ok"), (59.0, "ok"), (61.0, "warning"), (901.0, "error")])
def test_clocks_are_compared_with_the_driver_s(skew: float, state: str) -> None:
    assert clock(skew).state == state


def test_nodes_with_other_weights_and_without_an_answer_are_named() -> None:
    good = CheckResult(check="GPU", found="none that Ray counts")
    answers = {
        "10.0.0.1": (0.0, {"segmenter": ["a" * 64]}, [good]),
        "10.0.0.2": (0.0, {"segmenter": ["b" * 64]}, [good]),
        "10.0.0.3": "no answer within 120 s",
    }
    groups = {group.name: group for group in _compare(answers, {"10.0.0.1": 0.0, "10.0.0.2": 0.0})}
    errors = {name: [one.check for one in group.findings if one.state == "error"] for name, group in groups.items()}
    assert errors == {"10.0.0.1": [], "10.0.0.2": ["segmenter weights"], "10.0.0.3": ["answer"]}
