"""`ray job submit` as the README gives it, against a real head: tokens, the job's log, failures, stop and resume."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from drawn import drawn_scenes
from heads import TOKEN, Head, plain, running_head
from label_runs import image_rows, write_shards
from soak import SOAK

from wsss_ray.storage.storage import Storage

SCENES = 56  # the `ray job stop` command takes seconds to start: enough is left then
PER_UNIT = 4


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with running_head(token=TOKEN) as head:
        yield head


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of drawn scenes."""
    folder = tmp_path_factory.mktemp("scenes")
    write_shards(Storage(str(folder)), image_rows(drawn_scenes(SCENES)), images_per_unit=PER_UNIT, classes="demo")
    return folder


def label_command(source: Path, output: Path) -> list[str]:
    command = ["python", "jobs/label.py", "--config", "demo", "--no-png", "--status-seconds", "1"]
    return [*command, "--ray.actors", "1", "--input", str(source), "--output", str(output)]


def label_files(output: Path) -> list[Path]:
    return sorted((output / "labels").glob("*.parquet"))


def test_a_stopped_job_is_finished_by_the_same_command(head: Head, scenes: Path, tmp_path: Path) -> None:
    command = label_command(scenes, tmp_path / "run")
    started = head.submit(command, "--no-wait", "--submission-id", "first")
    assert started.returncode == 0, started.stdout
    deadline = time.monotonic() + 400
    while not label_files(tmp_path / "run"):
        assert time.monotonic() < deadline, head.log("first")
        assert "Traceback" not in head.log("first"), head.log("first")
        time.sleep(0.05)
    stopped = head.job("stop", "first")
    assert stopped.returncode == 0, stopped.stdout
    assert "was stopped" in plain(stopped.stdout)
    before = {path: path.read_bytes() for path in label_files(tmp_path / "run")}
    assert 1 <= len(before) < SCENES // PER_UNIT, "the stop came too late to test anything"
    assert not list((tmp_path / "run" / "labels").glob(".*")), "the stop left an unfinished file"

    second = head.submit(command, "--submission-id", "second")
    assert second.returncode == 0, second.stdout
    assert {path: path.read_bytes() for path in before} == before, "finished units were labelled again"
    ids = [i for path in label_files(tmp_path / "run") for i in pq.read_table(path)["image_id"].to_pylist()]
    assert len(ids) == len(set(ids)) == SCENES
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["images"] == SCENES
    assert summary["session"]["images"] == SCENES - PER_UNIT * len(before)

    log = plain(second.stdout)
    assert f" / {SCENES} images (" in log, "no status line"
    assert f"{SCENES} / {SCENES} images (100.0%)" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("token", [None, "00" * 32])
def test_without_the_right_token_nobody_submits(head: Head, token: str | None) -> None:
    environment = {name: value for name, value in head.environment.items() if not name.startswith("RAY_AUTH")}
    environment["RAY_AUTH_MODE"] = "disabled" if token is None else "token"
    if token is not None:
        environment["RAY_AUTH_TOKEN"] = token
    result = head.job("submit", "--submission-id", f"thief-{token}", "--", "true", environment=environment)
    assert result.returncode != 0
    assert "uthent" in plain(result.stdout)
    assert not head.log(f"thief-{token}")


def check_a_failing_job(head: Head, folder: Path) -> None:
    result = head.submit(label_command(folder / "nothing", folder / "run"), "--submission-id", "failing")
    assert result.returncode == 1, result.stdout
    last = head.log("failing").strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert str(folder / "nothing") in last
    assert last in plain(result.stdout)


def test_a_failing_job_ends_with_its_reason(head: Head, tmp_path: Path) -> None:
    check_a_failing_job(head, tmp_path)


@pytest.mark.skipif(not SOAK, reason="in `make soak`: a second head; the other tests submit with tokens")
def test_a_head_without_tokens_takes_jobs_too(tmp_path: Path) -> None:
    with running_head(token=None) as head:
        check_a_failing_job(head, tmp_path)
