"""Several nodes, of which one comes late and one is killed in the middle of a run: what comes out is the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

import pytest
from nodes_run import GPUS_PER_NODE, PER_UNIT, UNITS
from nodes_train import ITERATIONS, config_of
from repository import REPOSITORY
from soak import SOAK
from training_cases import draw, losses_of_a_loop, write_set

from wsss_ray.storage.storage import Storage
from wsss_ray.training.metrics import read_metrics

# How soon a head takes a silent node for dead; Ray's own half minute only makes the test longer.
_HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What lost_nodes.py left, which has a process group of its own that ends with it."""
    folder = tmp_path_factory.mktemp("nodes")
    if SOAK:
        write_set(folder / "set", [draw(index, failed=index == 3) for index in range(32)])
    temporary = tempfile.mkdtemp(prefix="n", dir="/tmp")  # sockets' paths must be short
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= _HEALTH | {
        "RAY_AUTH_MODE": "disabled",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # all nodes on 127.0.0.1
        "RAY_TMPDIR": temporary,
        "RAY_idle_worker_killing_time_threshold_ms": "60000",  # as a local Ray has it
        "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests/support'}",
    }
    log = folder / "run.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "lost_nodes", str(folder)],
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        assert process.wait(timeout=600) == 0, log.read_text()[-4000:]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[str, Any]:
    """What lost_nodes.py told, by job."""
    return cast("dict[str, Any]", json.loads((folder / "told.json").read_text()))


def test_a_killed_node_loses_nothing(told: dict[str, Any]) -> None:
    told = told["units"]
    assert told["done_before_kill"] < UNITS, "the kill came too late to test anything"
    assert told["problems"] == []
    assert [row["image_id"] for row in told["rows"]] == [f"{u}-{i}" for u in range(UNITS) for i in range(PER_UNIT)]
    assert [row["length"] for row in told["rows"]] == [u + i for u in range(UNITS) for i in range(PER_UNIT)]
    assert all(row["error"] is None for row in told["rows"])


def test_the_run_starts_before_all_nodes_are_there_and_uses_those_that_come(folder: Path, told: dict[str, Any]) -> None:
    told = told["units"]
    assert told["actors"] == 2 * GPUS_PER_NODE
    assert 0 < told["done_before_join"] < UNITS
    lines = [line.split() for line in (folder / "log.nodes").read_text().splitlines()]
    assert {node for node, _ in lines} == {told["killed"], told["second"]}
    assert lines[-1][0] == told["second"]
    repeated = len(lines) - UNITS * PER_UNIT
    assert repeated <= told["actors"] * 2 * PER_UNIT, "more was labelled again than was in work on the killed node"


@pytest.mark.skipif(not SOAK, reason="in `make soak`: two workers start twice, each on a node of its own")
def test_workers_on_two_nodes_train_what_one_does_though_a_node_is_lost(folder: Path, told: dict[str, Any]) -> None:
    told = told["training"]
    for workers in (told["before"], told["after"]):
        assert [len(on_node) for on_node in workers] == [1, 1], "each node holds one of the workers"
    assert told["checkpoint_at_kill"] < ITERATIONS, "the kill came too late to test anything"
    assert told["summary"]["session"]["restarts"] == 1
    rows = read_metrics(Storage(str(folder / "set" / "trained")))
    assert [row.iteration for row in rows] == list(range(1, ITERATIONS + 1))
    assert [row.loss for row in rows] == pytest.approx(losses_of_a_loop(config_of(folder / "set")), rel=1e-3)
