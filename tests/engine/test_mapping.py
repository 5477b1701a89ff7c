"""Mapping a function over units on a real Ray: every result once, and an end to what fails or kills."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import engine_stages as stages
import pytest
import ray.cloudpickle
from engine_stages import ExperiencedLedger

from wsss_ray.config import RayConfig
from wsss_ray.engine import cluster, ray_mapping
from wsss_ray.engine.cluster import IN_PROCESS_IMAGES
from wsss_ray.engine.mapping import map_units
from wsss_ray.engine.resources import Resources
from wsss_ray.errors import JobError
from wsss_ray.shards.units import Unit

ray.cloudpickle.register_pickle_by_value(stages)
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the tasks have no path to this folder

UNITS = [
    Unit(shard="shard-00000-of-00001.parquet", row_group=i, rows=i, digest="ab" * 32, exif="ignore") for i in range(9)
]


def double(unit: Unit) -> int:
    return 2 * unit.rows


def attached(unit: Unit, attachment: bytes) -> tuple[int, bytes]:
    return unit.rows, attachment


def task_of(unit: Unit) -> str:
    return str(ray.get_runtime_context().get_task_id())


def refuse_the_fourth(unit: Unit) -> int:
    if unit.rows == 3:
        raise ValueError("the fourth cannot be read")
    return unit.rows


def die_over_the_fourth(unit: Unit, *, log: str, times: int) -> int:
    if unit.rows == 3:
        with Path(log).open("a") as file:
            file.write("begun\n")
        if len(Path(log).read_text().splitlines()) <= times:
            os.kill(os.getpid(), signal.SIGKILL)
    return unit.rows


def test_every_unit_gives_its_result_once(local_ray: Resources) -> None:
    results = list(map_units(UNITS, double, config=RayConfig(), resources=local_ray))
    assert sorted(results) == [(i, 2 * i) for i in range(9)]


def test_without_a_cluster_the_results_are_the_same() -> None:
    results = list(map_units(UNITS, double, config=RayConfig(), resources=None))
    assert results == [(i, 2 * i) for i in range(9)]
    with_attachments = map_units(UNITS, attached, config=RayConfig(), resources=None, attachments=[b"x"] * 9)
    assert list(with_attachments) == [(i, (i, b"x")) for i in range(9)]


def test_what_raises_without_a_cluster_has_the_same_reason() -> None:
    reason = "unit shard-00000-of-00001-0003-abababab: ValueError: the fourth cannot be read"
    with pytest.raises(JobError, match=reason):
        list(map_units(UNITS, refuse_the_fourth, config=RayConfig(), resources=None))


@pytest.mark.parametrize(
    ("images", "config", "address", "in_process"),
    [
        (IN_PROCESS_IMAGES, RayConfig(), None, True),
        (IN_PROCESS_IMAGES + 1, RayConfig(), None, False),
        (1, RayConfig(actors=1), None, False),
        (1, RayConfig(address="auto"), None, False),
        (1, RayConfig(), "auto", False),
    ],
)
def test_small_jobs_run_without_ray_unless_a_cluster_is_named(
    images: int, config: RayConfig, address: str | None, in_process: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def connected(_: RayConfig) -> Iterator[Resources]:
        yield Resources(nodes=())

    monkeypatch.setattr(cluster, "connect", connected)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with cluster.connect_for(images, config) as resources:
        assert (resources is None) is in_process


def test_no_units_give_nothing(local_ray: Resources) -> None:
    assert list(map_units([], double, config=RayConfig(), resources=local_ray)) == []


def test_what_raises_ends_the_run_with_its_reason(local_ray: Resources) -> None:
    with pytest.raises(
        JobError, match="unit shard-00000-of-00001-0003-abababab: ValueError: the fourth cannot be read"
    ):
        list(map_units(UNITS, refuse_the_fourth, config=RayConfig(), resources=local_ray))


@pytest.mark.parametrize("units_per_task", [1, 2])
def test_one_death_is_forgiven(tmp_path: Path, local_ray: Resources, units_per_task: int) -> None:
    work = functools.partial(die_over_the_fourth, log=str(tmp_path / "log"), times=1)
    config = RayConfig(actors=1)
    results = map_units(UNITS, work, config=config, resources=local_ray, units_per_task=units_per_task)
    assert sorted(results) == [(i, i) for i in range(9)]


@pytest.mark.parametrize(("units_per_task", "processes"), [(1, 9), (2, 5), (100, 5)])
def test_several_units_share_a_task_but_few_are_spread(
    local_ray: Resources, units_per_task: int, processes: int
) -> None:
    results = dict(
        map_units(UNITS, task_of, config=RayConfig(actors=1), resources=local_ray, units_per_task=units_per_task)
    )
    assert sorted(results) == list(range(9))
    assert len(set(results.values())) == processes


def test_a_unit_that_keeps_killing_ends_the_run_by_name(
    tmp_path: Path, local_ray: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last three of its deaths."""
    ledger = ray.remote(ExperiencedLedger).options(num_cpus=0).remote()
    monkeypatch.setattr(ray_mapping, "open_ledger", lambda: ledger)
    log = tmp_path / "log"
    work = functools.partial(die_over_the_fourth, log=str(log), times=100)
    with pytest.raises(JobError, match="unit shard-00000-of-00001-0003-abababab: its process died repeatedly"):
        list(map_units(UNITS, work, config=RayConfig(), resources=local_ray))
    assert len(log.read_text().splitlines()) == 4  # once with its task, three times by name
    ray.kill(ledger)


def test_tasks_larger_than_the_cluster_are_refused(local_ray: Resources) -> None:
    with pytest.raises(ValueError, match="a task needs 1000 cores, but no node has more than"):
        list(map_units(UNITS, double, config=RayConfig(cpus_per_actor=1000), resources=local_ray))
