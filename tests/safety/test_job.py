"""Real jobs: what one with secrets around it and a damaged image tells and writes, and what they listen on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from drawn import drawn_scenes
from faulty_s3 import Faults, faulty
from label_runs import image_rows, write_shards
from local_s3 import S3Server
from processes import check_loopback, listened
from repository import REPOSITORY

from wsss_ray.storage.storage import Storage

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7PLANTED",
    "AWS_SECRET_ACCESS_KEY": "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",
    "AWS_SESSION_TOKEN": "FwoGZXIvYXdzEPLANTEDPLANTEDPLANTED",
    "HF_TOKEN": "hf_PLANTEDPLANTEDPLANTEDPLANTED",
}


@dataclass(kw_only=True)
class Told:
    """What the job left."""

    status: int
    text: str
    written: dict[str, bytes]
    ray_logs: dict[str, bytes]
    listening: set[str] = field(default_factory=set)
    """Every local address that a process of the job listened on while it ran."""


@pytest.fixture(scope="module")
def told(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """A labelling run from and to S3, in the local mode."""
    images = drawn_scenes(8)
    name = next(iter(images))
    images[name] = (images[name][0][:2000], images[name][1])
    write_shards(Storage(s3.uri("safety/in"), s3.config), image_rows(images), images_per_unit=4, classes="demo")
    temporary = tempfile.mkdtemp(prefix="s", dir="/tmp")  # sockets' paths must be short
    log = tmp_path_factory.mktemp("job") / "log"
    command = ["jobs/label.py", "--config", "demo", "--ray.actors", "1", "--no-png"]
    command += ["--input", s3.uri("safety/in"), "--output", s3.uri("safety/out")]
    secrets = SECRETS | {"AWS_ENDPOINT_URL": s3.endpoint_url}
    status, listening = watch(command, log, temporary=temporary, environment=secrets)
    out = Storage(s3.uri("safety/out"), s3.config)
    yield Told(
        status=status,
        text=log.read_text(),
        written={path: out.read(path) for path in out.walk()},
        ray_logs={str(path): path.read_bytes() for path in Path(temporary).rglob("*") if path.is_file()},
        listening=listening,
    )
    shutil.rmtree(temporary, ignore_errors=True)


def watch(command: list[str], log: Path, *, temporary: str, environment: dict[str, str]) -> tuple[int, set[str]]:
    """Run a job in the local mode; its status, and every local address that a process of it listened on."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = inherited | {"RAY_TMPDIR": temporary} | environment
    listening: set[str] = set()
    with log.open("w") as output:
        process = psutil.Popen(
            [sys.executable, *command], cwd=REPOSITORY, env=environment, stdout=output, stderr=output
        )
        try:
            deadline = time.monotonic() + 600
            while process.poll() is None:
                assert time.monotonic() < deadline, log.read_text()
                listening |= listened(process)
                time.sleep(0.5)
        finally:
            if process.poll() is None:
                process.terminate()
    return process.returncode, listening


def test_the_job_did_its_work(told: Told) -> None:
    assert told.status == 0, told.text
    assert {"run.json", "summary.json"} <= told.written.keys()
    assert "8 / 8 images (100.0%)" in told.text
    assert any(path.endswith(".log") or path.endswith(".out") for path in told.ray_logs)


def test_nothing_listens_beyond_this_machine(told: Told) -> None:
    check_loopback(told.listening)


@pytest.mark.parametrize("name", SECRETS)
def test_no_secret_is_told_or_written(told: Told, name: str) -> None:
    secret = SECRETS[name]
    assert secret not in told.text
    for path, data in {**told.written, **told.ray_logs}.items():
        assert secret.encode() not in data, path


def test_a_failure_is_logged_with_its_unit_and_image(told: Told) -> None:
    (line,) = [line for line in told.text.splitlines() if " failed: decode: " in line]
    assert " WARNING wsss_ray.engine.worker: failed: decode: " in line
    assert re.search(r"\| stage=label unit=shard-00000-of-00001-0000-[0-9a-f]{8} image=scene-1000000$", line)


REFUSED = [
    (["--input", "s3://AKIAIOSFODNN7PLANTED:hiddenhidden@bucket/in", "--output", "out"], "must not hold a user"),
    (["--input", "https://user:hiddenhidden@host/in", "--output", "out"], "must not hold a user"),
    (["--input", "https://host.invalid/in?X-Amz-Signature=hiddenhidden", "--output", "out"], ""),
]


@pytest.mark.parametrize(("arguments", "reason"), REFUSED)
def test_what_is_refused_is_told_without_its_secret(tmp_path: Path, arguments: list[str], reason: str) -> None:
    command = [sys.executable, str(REPOSITORY / "jobs" / "label.py"), "--config", "demo"]
    done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == (2 if reason else 1), "an address with a password is a wrong flag"
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert reason in last
    assert "hiddenhidden" not in done.stdout + done.stderr
    assert "AKIA" not in done.stdout + done.stderr


def test_a_job_that_a_store_refuses_tells_no_secret(s3: S3Server, tmp_path: Path) -> None:
    """S3 repeats the key in its answer."""
    key = f"<AWSAccessKeyId>{SECRETS['AWS_ACCESS_KEY_ID']}</AWSAccessKeyId>"
    with faulty(s3) as proxy:
        proxy.faults = Faults(error=(403, "InvalidAccessKeyId", key))
        command = [sys.executable, str(REPOSITORY / "jobs" / "label.py"), "--config", "demo"]
        command += ["--input", proxy.uri("safety/in"), "--output", str(tmp_path / "out")]
        environment = {**os.environ, **SECRETS, "AWS_ENDPOINT_URL": proxy.endpoint_url}
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "does not accept the credentials" in done.stderr
    assert not (tmp_path / "out").exists()
    for secret in SECRETS.values():
        assert secret not in done.stdout + done.stderr
