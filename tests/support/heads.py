"""A Ray head of its own on free ports of 127.0.0.1, as a cluster would run one, and `ray job` against it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from repository import REPOSITORY

RAY = str(Path(sys.executable).with_name("ray"))
TOKEN = "4f" * 32
_PORTS = (
    "--port",
    "--dashboard-port",
    "--dashboard-agent-listen-port",
    "--dashboard-agent-grpc-port",
    "--runtime-env-agent-port",
    "--metrics-export-port",
    "--ray-client-server-port",
)


@dataclass(frozen=True, kw_only=True)
class Head:
    """A running head."""

    pid: int
    address: str
    """What `ray job submit --address` takes."""
    metrics: str
    """URL of its metrics."""
    environment: dict[str, str]
    """Environment of a client that may use it."""
    folder: Path
    """Ray's files: sessions and logs."""

    def job(self, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """`ray job ARGUMENTS`, its output as text; `--address` comes with it."""
        return subprocess.run(
            [RAY, "job", arguments[0], "--address", self.address, *arguments[1:]],
            cwd=REPOSITORY,
            env=environment or self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=500,
            check=False,
        )

    def submit(self, command: Sequence[str], *options: str) -> subprocess.CompletedProcess[str]:
        """The documented way: the repository's folder is uploaded, the job's output is streamed.

        A head on a busy machine answers for a while before its node's agent can start jobs.
        """
        deadline = time.monotonic() + 120
        while True:
            done = self.job("submit", "--working-dir", ".", *options, "--", *command)
            if "No available agent to submit job" not in done.stdout or time.monotonic() > deadline:
                return done
            time.sleep(1)

    def log(self, submission: str) -> str:
        """What a job has printed so far."""
        path = self.folder / "r" / "session_latest" / "logs" / f"job-driver-{submission}.log"
        return path.read_text() if path.exists() else ""

    def processes(self) -> list[psutil.Process]:
        """The head and everything that it started."""
        head = psutil.Process(self.pid)
        return [head, *head.children(recursive=True)]


@contextmanager
def running_head(*, token: str | None, cpus: int = 2) -> Iterator[Head]:
    """Start a head in a session of its own; at the end it is killed with everything below it."""
    folder = Path(tempfile.mkdtemp(prefix="h", dir="/tmp"))  # sockets' paths must be short
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"  # `python` is this one, as in a venv
    environment |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "disabled", "NO_COLOR": "1"}
    if token is not None:
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
    command = [RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"]
    command += [f"{flag}={port}" for flag, port in ports.items()]
    command += [f"--num-cpus={cpus}", f"--temp-dir={folder / 'r'}", "--disable-usage-stats"]
    command += ["--object-store-memory=100000000"]
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    head = Head(
        pid=process.pid,
        address=f"http://127.0.0.1:{ports['--dashboard-port']}",
        metrics=f"http://127.0.0.1:{ports['--metrics-export-port']}",
        environment=environment,
        folder=folder,
    )
    try:
        _wait_until_up(head, process)
        yield head
    finally:
        family = head.processes()
        os.killpg(process.pid, signal.SIGKILL)
        for member in family:
            if member.is_running():
                member.kill()
        process.wait()
        psutil.wait_procs(family, timeout=20)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_up(head: Head, process: subprocess.Popen[bytes]) -> None:
    """Until the head takes jobs: one agent of the node must have reported, or a submission is refused."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, (head.folder / "head.log").read_text()
        request = urllib.request.Request(f"{head.address}/api/jobs/")
        if head.environment["RAY_AUTH_MODE"] == "token":
            request.add_header("Authorization", f"Bearer {head.environment['RAY_AUTH_TOKEN']}")
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.3)
    raise AssertionError(f"no head after 240 s: {(head.folder / 'head.log').read_text()}")


def _free_ports(count: int) -> list[int]:
    """Ports that nobody has now; all are held open together, so that they differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def plain(text: str) -> str:
    """Output without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)
