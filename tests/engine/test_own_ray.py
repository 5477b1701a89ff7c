"""The end of a job's own Ray: one line, at once, and nothing stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
from repository import REPOSITORY

from wsss_ray.config import RayConfig
from wsss_ray.engine.cluster import connect
from wsss_ray.engine.ray_data import _filtered_stderr
from wsss_ray.errors import INTERRUPTED, Terminated, one_line

SLEEPER = """
import sys, time
from ray._private.worker import global_worker
from wsss_ray.config import RayConfig
from wsss_ray.engine.cluster import connect
with connect(RayConfig()):
    node = global_worker.node
    print(node.get_session_dir_path(), node.all_processes[sys.argv[1]][0].process.pid, flush=True)
    time.sleep(600)
"""


def named(text: str) -> list[int]:
    """Ids of the processes whose command line holds a text."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            found += [int(entry.name)] if text.encode() in (entry / "cmdline").read_bytes() else []
        except OSError:
            continue
    return found


@pytest.mark.parametrize(("kind", "name"), [("gcs_server", "GCS"), ("raylet", "raylet")])
def test_a_lost_ray_ends_the_job_with_one_line_and_leaves_nothing(kind: str, name: str) -> None:
    command = [sys.executable, "-c", SLEEPER, kind]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as job:
        assert job.stdout is not None
        session, pid = job.stdout.readline().split()
        begun = time.monotonic()
        os.kill(int(pid), signal.SIGKILL)
        _, stderr = job.communicate(timeout=60)
    assert time.monotonic() - begun < 20, "Ray alone takes a minute"
    assert job.returncode == 1
    assert stderr.splitlines()[-1].startswith(f"error: the {name} process of this job's Ray was lost: ")
    end = time.monotonic() + 10
    while (left := named(session)) and time.monotonic() < end:
        time.sleep(0.1)
    assert left == []


def test_a_signal_to_all_processes_of_a_job_is_an_interrupt() -> None:
    """As `timeout` and some schedulers send it: the raylet ends first."""
    program = SLEEPER.replace("with connect", "from wsss_ray.errors import unwind_on_sigterm\nwith connect")
    with subprocess.Popen(
        [sys.executable, "-c", program, "raylet"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as job:
        assert job.stdout is not None
        _, pid = job.stdout.readline().split()
        os.kill(job.pid, signal.SIGTERM)
        os.kill(int(pid), signal.SIGKILL)
        _, stderr = job.communicate(timeout=60)
    assert "was lost" not in stderr
    assert "Terminated" in stderr or stderr.splitlines()[-1] == INTERRUPTED


def test_sigterm_while_ray_starts_is_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own handler of that time exits."""

    def start(**_: object) -> None:
        raise SystemExit(signal.SIGTERM)

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", start)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(Terminated), connect(RayConfig()):
        pass


def test_only_the_unwanted_line_is_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    with _filtered_stderr(b"frightens"):
        os.write(2, b"one\nthis line frightens for no reason\ntwo\n")
    os.write(2, b"this one frightens too\n")
    assert capfd.readouterr().err == "one\ntwo\nthis one frightens too\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("one line", "one line"),
        (
            "what differs (there -> here):\n  a: 1 -> 2\n  b: 3 -> 4",
            "what differs (there -> here): a: 1 -> 2; b: 3 -> 4",
        ),
        ("broke off.\nRun it again.\n", "broke off. Run it again."),
    ],
)
def test_the_reason_of_a_failed_job_is_one_line(text: str, line: str) -> None:
    assert one_line(text) == line
