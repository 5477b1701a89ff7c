"""The Dockerfile without Docker: what it copies exists, what it installs is what was tested, weights are checked."""

from __future__ import annotations

import hashlib
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from repository import REPOSITORY

from wsss_ray.models.detector.grounding_dino import PINNED_COMMITS


def read_instructions() -> list[tuple[str, str]]:
    """Instructions and their arguments, continued lines joined, comments left out."""
    lines = [line for line in (REPOSITORY / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in joined.splitlines() if line.strip()]


INSTRUCTIONS = read_instructions()
ARGUMENTS = dict(value.split("=", 1) for name, value in INSTRUCTIONS if name == "ARG")
RUNS = [value for name, value in INSTRUCTIONS if name == "RUN"]


def copied() -> list[str]:
    return [
        source
        for name, value in INSTRUCTIONS
        if name == "COPY"
        for source in [word for word in shlex.split(value) if not word.startswith("--")][:-1]
    ]


def test_instructions_are_known() -> None:
    assert {name for name, _ in INSTRUCTIONS} <= {"FROM", "ARG", "RUN", "COPY", "WORKDIR"}
    assert INSTRUCTIONS[0][0] == "FROM"


def test_the_base_is_ray_s_gpu_image_of_the_tested_version() -> None:
    constraints = (REPOSITORY / "constraints.txt").read_text()
    version = re.search(r"^ray==(.+)$", constraints, re.MULTILINE)[1]  # type: ignore[index]
    assert INSTRUCTIONS[0][1] == f"rayproject/ray:{version}-py311-gpu"


def test_every_source_exists_and_reaches_the_build() -> None:
    assert {"pyproject.toml", "constraints.txt", "wsss_ray", "jobs"} <= set(copied())
    admitted = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert "*" in admitted
    for source in copied():
        assert (REPOSITORY / source).exists()
        assert f"!{source}" in admitted


def test_nothing_else_reaches_the_build() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in lines if line.startswith("!")} == set(copied())


def test_dependencies_are_the_constrained_ones_and_come_before_the_code() -> None:
    installs = [command for run in RUNS for command in run.split("&&") if "pip install" in command]
    assert all("-c constraints.txt" in command or "--no-deps" in command for command in installs)
    assert any("-r requirements.txt" in command for command in installs)
    order = [value for name, value in INSTRUCTIONS if name in ("RUN", "COPY")]
    assert next(i for i, v in enumerate(order) if "-r requirements.txt" in v) < next(
        i for i, v in enumerate(order) if "wsss_ray" in v
    )


def test_weights_are_the_configurations_own_and_checked() -> None:
    assert ARGUMENTS["WEIGHTS"] == "published"
    for name in ("coco.yaml", "voc.yaml", "coco-paper.yaml", "voc-paper.yaml"):
        settings = yaml.safe_load((REPOSITORY / "wsss_ray/config/presets" / name).read_text())
        assert settings["segmenter"]["sha256"] == ARGUMENTS["SAM_SHA256"]
        assert Path(settings["segmenter"]["checkpoint"]).name == ARGUMENTS["SAM_URL"].rsplit("/", 1)[1]
        assert settings["detector"]["model"] == ARGUMENTS["DETECTOR"]
    assert PINNED_COMMITS[ARGUMENTS["DETECTOR"]] == ARGUMENTS["DETECTOR_COMMIT"]


@pytest.mark.parametrize(
    ("weights", "content", "status"),
    [("none", b"", 0), ("published", b"the right weights", 0), ("published", b"others", 1), ("some", b"", 1)],
)
def test_the_step_that_fetches_weights(tmp_path: Path, weights: str, content: bytes, status: int) -> None:
    """The shell of the step itself, with a `curl` and an `hf` that bring what the test wants."""
    (step,) = [run for run in RUNS if "sha256sum" in run]
    tools = tmp_path / "tools"
    tools.mkdir()
    (tmp_path / "content").write_bytes(content)
    (tools / "curl").write_text(f'#!/bin/sh\nwhile [ "$1" != --output ]; do shift; done\ncp {tmp_path}/content "$2"\n')
    (tools / "hf").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/hf\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    right = hashlib.sha256(b"the right weights").hexdigest()
    result = subprocess.run(
        ["/bin/sh", "-c", step.replace("/home/ray/weights", str(tmp_path / "weights"))],
        env={**ARGUMENTS, "WEIGHTS": weights, "SAM_SHA256": right, "PATH": f"{tools}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == status, result.stderr
    assert (tmp_path / "hf").exists() == (weights == "published" and status == 0)
    if (tmp_path / "hf").exists():
        assert (tmp_path / "weights" / "sam_vit_h_4b8939.pth").read_bytes() == content
        assert f"--revision {ARGUMENTS['DETECTOR_COMMIT']}" in (tmp_path / "hf").read_text()
