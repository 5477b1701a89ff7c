"""Fixtures for all tests, the mark `unit`, and the order of the tests."""

import functools
import gc
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from faulty_s3 import Faults, FaultyS3, faulty
from local_s3 import S3Server, running_s3
from process_use import starts_processes
from repository import REPOSITORY
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from wsss_ray.config import RayConfig
from wsss_ray.engine.cluster import connect
from wsss_ray.engine.resources import Resources

# Set before torch is imported: several processes compute at once, and small networks are slower with several threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Read when Triton is imported: its kernels then run on the CPU, without a compiler.
os.environ.setdefault("TRITON_INTERPRET", "1")
# Ray looks for new log files and measures its processes every second; in a long session that costs time.
for name, value in {
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "1",
    "LOG_NAME_UPDATE_INTERVAL_S": "2",
    "REPORTER_UPDATE_INTERVAL_MS": "30000",
}.items():
    os.environ.setdefault(name, value)
# Set before Ray starts, so that its workers have them too. The local S3 server accepts any credentials.
os.environ.update(AWS_ACCESS_KEY_ID="testing", AWS_SECRET_ACCESS_KEY="testing", AWS_DEFAULT_REGION="us-east-1")


LONGEST_FOLDERS = ("training", "labelling", "cluster", "engine", "evaluation", "pipeline", "demo", "prediction")
"""Folders of tests that take longest, longest first: they start first, so that both processes end together."""


@functools.cache
def is_slow(file: Path) -> bool:
    """Return whether a file's tests use a Ray or run commands: nearly all of the time goes there."""
    near = [file, file.with_name("conftest.py")]
    words = ("local_ray", "Popen", "running_head")
    return any(word in path.read_text() for path in near if path.exists() for word in words)


class ByFolder(LoadScopeScheduling):
    """Give each of the processes (`-n 2`) whole folders, whose files share what a Ray made for them, then files."""

    def _split_scope(self, nodeid: str) -> str:
        file = REPOSITORY / nodeid.partition("::")[0]
        return str(file.parent if is_slow(file) else file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFolder:
    """Called by pytest-xdist."""
    config.option.loadscopereorder = False
    return ByFolder(config, log)


# Importing all tests creates millions of objects that stay: collecting garbage among them costs seconds.
gc.disable()


def pytest_collection_finish() -> None:
    """Collect garbage again from here on, but not among the objects that the imports created."""
    gc.enable()
    gc.freeze()


PRETENDED_GPU = ("tests/cuda/", "tests/models/cost/")
"""Tests that start nothing, but run or count whole networks: with them `unit` would take half as long again."""


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks."""
    config.addinivalue_line(
        "markers", "unit: starts no process, no Ray and no pretended GPU (set by tests/conftest.py)"
    )
    config.addinivalue_line("markers", "processes: starts a process or a Ray through the package's code")


@pytest.hookimpl(tryfirst=True)  # before `-m unit` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start no process, and put the slow files first: the quick ones then fill the end."""
    for item in items:
        if not starts_processes(item) and not item.nodeid.startswith(PRETENDED_GPU):
            item.add_marker(pytest.mark.unit)
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    if not is_slow(item.path):
        return len(LONGEST_FOLDERS) + 1
    folder = item.path.parent.name
    return LONGEST_FOLDERS.index(folder) if folder in LONGEST_FOLDERS else len(LONGEST_FOLDERS)


def _refuse_process(*arguments: object, **_: object) -> NoReturn:
    pytest.fail(f"this test carries the mark `unit`, but starts {arguments[1:]}: give it the mark `processes`")


@contextmanager
def _unit_tests_start_nothing(item: pytest.Item) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if item.get_closest_marker("unit"):
            patch.setattr(subprocess.Popen, "__init__", _refuse_process)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Fail a test of the mark `unit` whose fixtures start a process."""
    with _unit_tests_start_nothing(item):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test of the mark `unit` that starts a process."""
    with _unit_tests_start_nothing(item):
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real photos and awkward files, or skip and say how to name it."""
    path = (REPOSITORY / os.environ.get("WSSS_SHARED", "../shared")).resolve()
    if not (path / "data").is_dir():
        pytest.skip(f"no test photos at {path}: set WSSS_SHARED to the folder that holds data/voc and data/coco")
    return path


@pytest.fixture(scope="session")
def local_ray() -> Iterator[Resources]:
    """Start one local Ray for the whole test session: a start takes seconds."""
    with connect(RayConfig()) as resources:
        yield resources


@pytest.fixture
def in_this_process(local_ray: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run trainings without the processes of Ray Train, whose start takes longer than a short training."""
    from near_training import train_in_this_process  # noqa: PLC0415 - it imports torch, which few tests need

    train_in_this_process(monkeypatch)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """Start a real S3 server for the whole test session."""
    with running_s3() as server:
        yield server


@pytest.fixture
def failing_s3(s3: S3Server) -> Iterator[FaultyS3]:
    """Put a proxy before the server that refuses a fifth of the requests and breaks connections."""
    with faulty(s3) as proxy:
        proxy.faults = Faults(refuse=0.2, drop=0.03, lose=0.03, cut=0.03)
        yield proxy
        assert proxy.happened["refuse"], "nothing failed, so nothing was tested"
