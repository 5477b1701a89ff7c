"""The workers' metrics, read where Prometheus reads them: from Ray's own endpoint. And what Grafana asks for."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import pyarrow as pa
import pytest
import ray
import ray.cloudpickle
from drawn import drawn_scenes
from label_runs import image_rows, write_shards
from repository import REPOSITORY

from wsss_ray.engine.meter import Meter
from wsss_ray.engine.progress import Progress
from wsss_ray.engine.resources import Pool, Resources
from wsss_ray.engine.run import run_units
from wsss_ray.engine.stage import StageSpec
from wsss_ray.engine.task import UnitTask
from wsss_ray.engine.telemetry import NAMES
from wsss_ray.shards.image_shards import read_shard_set
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the actors have no path to this folder
STAGE = "counted"
BYTES_ON_DEVICE = 123_456_789


class FirstFails:
    """Fails the first image of every unit and takes a while over it."""

    output_schema = pa.schema([("image_id", pa.string()), ("error", pa.string())])

    def __call__(self, rows: pa.Table, meter: Meter) -> pa.Table:
        with meter("segment"):
            time.sleep(0.05)
        errors = ["decode: truncated: early"] + [None] * (rows.num_rows - 1)
        return pa.table([rows["image_id"], pa.array(errors, pa.string())], schema=self.output_schema)


def first_fails() -> FirstFails:
    return FirstFails()


def bytes_on_device() -> int:
    return BYTES_ON_DEVICE


@dataclass(frozen=True)
class CountingSink:
    """Two boxes for every image that did not fail; writes nothing."""

    def commit(self, unit: Unit, rows: pa.Table, *, version: str | None, gpus: Sequence[str] = ()) -> Mapping[str, Any]:
        failed = rows["error"].null_count - rows.num_rows
        return {"images": rows.num_rows, "boxes": 2 * (rows.num_rows + failed), "statuses": {"ok": 3, "failed": 1}}

    def counts(self, unit: Unit) -> Mapping[str, Any] | None:
        return None


@pytest.fixture(scope="module")
def endpoint(local_ray: Resources, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int]:
    """Host and port of the node's metrics, after a run of three units of four images."""
    folder = tmp_path_factory.mktemp("metrics")
    images = Storage(str(folder))
    write_shards(images, image_rows(drawn_scenes(12)), images_per_unit=4, classes="demo")
    spec = StageSpec(name=STAGE, make=first_fails, pool=Pool(actors=1, cpus=0.5, gpus=0), device_memory=bytes_on_device)
    tasks = [UnitTask(unit=unit) for unit in read_shard_set(images).units]
    run_units(
        tasks,
        images=images,
        stages=[spec],
        sink=CountingSink(),
        progress=Progress(total=12, done=0, every_seconds=60),
    )
    (node,) = (node for node in ray.nodes() if node["Alive"])
    return node["NodeManagerAddress"], node["MetricsExportPort"]


@pytest.fixture(scope="module")
def scraped(endpoint: tuple[str, int]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Value by name and labels of all that this project's stage reported, once Ray has carried it all there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"http://{endpoint[0]}:{endpoint[1]}/metrics", timeout=10) as response:
            text = response.read().decode()
        found = {}
        for line in text.splitlines():
            match = re.fullmatch(r"ray_(wsss_ray_\w+)\{(.*)\} (\S+)", line)
            if match:
                labels = frozenset(re.findall(r'(\w+)="([^"]*)"', match[2]))
                if ("stage", STAGE) in labels:
                    found[match[1], frozenset((k, v) for k, v in labels if k in KEPT)] = float(match[3])
        if found.get(("wsss_ray_units_total", frozenset())) == 3:
            return found
        time.sleep(1)
    raise AssertionError(f"not there after 60 s, but: {found}")


KEPT = {"status", "step", "part", "le"}


def test_counts_are_what_was_committed(scraped: dict[tuple[str, frozenset[tuple[str, str]]], float]) -> None:
    expected = {
        ("wsss_ray_images_total", "status", "ok"): 9,
        ("wsss_ray_images_total", "status", "failed"): 3,
        ("wsss_ray_failures_total", "step", "decode"): 3,
    }
    for (name, key, value), count in expected.items():
        assert scraped[name, frozenset({(key, value)})] == count
    assert scraped["wsss_ray_boxes_total", frozenset()] == 18


def test_seconds_and_waits_and_memory(scraped: dict[tuple[str, frozenset[tuple[str, str]]], float]) -> None:
    seconds = scraped["wsss_ray_stage_seconds_total", frozenset({("part", "segment")})]
    assert 0.15 <= seconds < 5
    assert ("wsss_ray_stage_seconds_total", frozenset({("part", "wait")})) in scraped
    assert scraped["wsss_ray_queue_wait_seconds_count", frozenset()] == 3
    assert scraped["wsss_ray_device_memory_bytes", frozenset()] == BYTES_ON_DEVICE


def test_every_metric_is_there(scraped: dict[tuple[str, frozenset[tuple[str, str]]], float]) -> None:
    names = {re.sub(r"_(count|sum|bucket)$", "", name) for name, _ in scraped}
    assert names == set(NAMES)


def test_the_endpoint_is_this_machine_s_alone(endpoint: tuple[str, int]) -> None:
    listening: list[str] = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):  # it ended meanwhile
            listening += [
                entry.laddr.ip
                for entry in process.net_connections("inet")
                if entry.status == psutil.CONN_LISTEN and entry.laddr.port == endpoint[1]
            ]
    assert listening
    assert all(ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback for address in listening)


DASHBOARD = json.loads((REPOSITORY / "deploy" / "grafana.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]


def test_the_dashboard_asks_for_what_is_reported() -> None:
    asked = {name for query in QUERIES for name in re.findall(r"\bray_(wsss_ray_\w+)", query)}
    assert {re.sub(r"_(count|sum|bucket)$", "", name) for name in asked} == set(NAMES)


def test_the_dashboard_is_whole() -> None:
    assert DASHBOARD["uid"]
    assert DASHBOARD["title"]
    identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    for panel in DASHBOARD["panels"]:
        assert panel["title"]
        assert panel["gridPos"].keys() == {"x", "y", "w", "h"}
        for target in panel["targets"]:
            assert target["expr"].count("(") == target["expr"].count(")")
            assert target["datasource"]["uid"] == "${datasource}"
