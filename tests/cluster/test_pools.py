"""Sizes of pools on clusters that are there and on clusters that are still to grow, and what their workers see."""

from __future__ import annotations

import os
from typing import Any

import pytest
import ray
from ray._private import accelerators

from wsss_ray.config import RayConfig
from wsss_ray.engine import cluster
from wsss_ray.engine.cluster import connect
from wsss_ray.engine.resources import Node, Pool, Resources, check_pools, model_pool, uses_gpus
from wsss_ray.errors import JobError


def equal(nodes: int, cpus: float, gpus: float = 0) -> Resources:
    return Resources(nodes=(Node(cpus=cpus, gpus=gpus),) * nodes)


NOTHING = equal(1, 0)
"""An autoscaling cluster before its first job: a head that takes no work."""
GROWING: dict[str, Any] = {"wait_for_nodes": True, "actors": 8, "gpus_per_actor": 1}


@pytest.mark.parametrize(
    ("config", "resources", "pool"),
    [
        ({}, equal(2, 16, 2), Pool(actors=4, cpus=0.99, gpus=1)),
        ({"gpus_per_actor": 0.5}, equal(2, 16, 2), Pool(actors=8, cpus=0.99, gpus=0.5)),
        ({"gpus_per_actor": 0}, equal(1, 8, 4), Pool(actors=8, cpus=0.97, gpus=0)),
        ({"actors": 2}, equal(1, 2), Pool(actors=2, cpus=0.9, gpus=0)),
        ({"actors": 1}, equal(2, 8), Pool(actors=1, cpus=7.79, gpus=0)),
        ({"actors": 3}, equal(2, 8), Pool(actors=3, cpus=3.9, gpus=0)),
        ({}, equal(2, 8), Pool(actors=16, cpus=0.97, gpus=0)),
        ({}, Resources(nodes=(Node(cpus=32, gpus=0), Node(cpus=2, gpus=4))), Pool(actors=4, cpus=0.45, gpus=1)),
        (GROWING, NOTHING, Pool(actors=8, cpus=1.0, gpus=1)),
        ({**GROWING, "cpus_per_actor": 3}, NOTHING, Pool(actors=8, cpus=3, gpus=1)),
        ({**GROWING, "gpus_per_actor": 0}, NOTHING, Pool(actors=8, cpus=1.0, gpus=0)),
    ],
)
def test_sizes(config: dict[str, Any], resources: Resources, pool: Pool) -> None:
    assert model_pool(RayConfig(**config), resources) == pool


@pytest.mark.parametrize("missing", ["actors", "gpus_per_actor"])
def test_a_cluster_still_to_grow_does_not_tell_its_size(missing: str) -> None:
    config = RayConfig(**{name: value for name, value in GROWING.items() if name != missing})
    with pytest.raises(ValueError, match=r"needs --ray[.]actors and --ray[.]gpus-per-actor"):
        model_pool(config, NOTHING)


def test_what_can_never_be_held_is_refused_unless_nodes_will_come() -> None:
    pools = [Pool(actors=8, cpus=1, gpus=1)]
    with pytest.raises(ValueError, match="the pools need 8 GPUs, but the cluster has 4"):
        check_pools(pools, equal(1, 64, 4), RayConfig())
    check_pools(pools, NOTHING, RayConfig(**GROWING))


@pytest.mark.parametrize(
    ("pools", "there"),
    [
        ([Pool(actors=1, cpus=12, gpus=0)], equal(2, 8)),
        ([Pool(actors=3, cpus=5, gpus=0)], equal(2, 8)),
        ([Pool(actors=2, cpus=1, gpus=2)], equal(4, 8, 1)),
        ([Pool(actors=2, cpus=7, gpus=0), Pool(actors=1, cpus=1.5, gpus=0)], equal(2, 8)),
        ([Pool(actors=2, cpus=1, gpus=1)], Resources(nodes=(Node(cpus=8, gpus=0), Node(cpus=1, gpus=2)))),
    ],
)
def test_what_fits_in_sum_but_on_no_node_is_refused(pools: list[Pool], there: Resources) -> None:
    with pytest.raises(ValueError, match=r".* do not fit on .*: each must fit on one node"):
        check_pools(pools, there, RayConfig())
    check_pools(pools, there, RayConfig(wait_for_nodes=True, actors=2, gpus_per_actor=1))


def test_what_fits_on_nodes_is_not_refused() -> None:
    check_pools([Pool(actors=4, cpus=1, gpus=1), Pool(actors=8, cpus=0.9, gpus=0)], equal(2, 8, 2), RayConfig())


@pytest.mark.parametrize(
    ("gpus_per_actor", "gpus", "uses"), [(None, 0, False), (None, 4, True), (1, 0, True), (0, 4, False), (0.5, 0, True)]
)
def test_the_run_s_identity_is_the_same_before_and_after_nodes_come(
    gpus_per_actor: float | None, gpus: float, uses: bool
) -> None:
    assert uses_gpus(RayConfig(gpus_per_actor=gpus_per_actor), gpus) is uses


@pytest.mark.parametrize(
    ("nodes", "native"),
    [
        ([{"CPU": 4.0}], True),
        ([{"CPU": 4.0, "GPU": 1.0, "accelerator_type:A100": 1.0}], True),
        ([{"CPU": 4.0, "GPU": 1.0, "accelerator_type:T4": 1.0}, {"CPU": 2.0}], False),
        ([{"CPU": 4.0, "GPU": 1.0}], True),  # of a kind that Ray does not know
    ],
)
def test_the_kinds_of_gpus_decide_what_auto_is(nodes: list[dict[str, float]], native: bool) -> None:
    made = Resources(nodes=tuple(cluster._node(node) for node in nodes))
    assert made.has_bfloat16 is native
    assert (made.gpus > 0) == any("GPU" in node for node in nodes)


@pytest.mark.parametrize(("visible", "gpus"), [(None, 2), ("", 0), ("0", 1), ("0,1,2", 2)])
def test_this_machine_s_gpus_are_those_that_a_ray_would_count(
    visible: str | None, gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether or not CUDA starts on them: labelling on the CPU instead would be silent."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    manager = accelerators.get_accelerator_manager_for_resource("GPU")
    monkeypatch.setattr(manager, "get_current_node_num_accelerators", staticmethod(lambda: 2))
    monkeypatch.setattr(manager, "get_current_node_accelerator_type", staticmethod(lambda: "T4"))
    found = cluster.this_machine()
    assert found.gpus == gpus
    assert found.has_bfloat16 is (gpus == 0)


def test_who_holds_no_gpu_sees_none(local_ray: Resources) -> None:
    """Ray alone would leave all GPUs of the machine visible to it."""

    @ray.remote(num_cpus=0, num_gpus=0)
    def visible() -> str | None:
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    assert ray.get(visible.remote()) == ""


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("10.0.0.1:6379", "cannot join the cluster at 10.0.0.1:6379: timed out, twice[.] Check that it runs"),
        (None, "Ray cannot start on this machine: timed out, twice[.] On a very busy one"),
    ],
)
def test_no_ray_to_be_had_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch, address: str | None, told: str) -> None:
    """As Ray says it: a bare Exception of several lines."""

    def refuse(**_: object) -> None:
        raise Exception("timed out,\ntwice")  # noqa: TRY002

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)  # of the Ray that other tests use
    with pytest.raises(JobError, match=told), connect(RayConfig(address=address)):
        pass
