"""The division of a cluster between workers and feeding tasks."""

import pytest
from training_cases import configure

from wsss_ray.config import RayConfig
from wsss_ray.engine.resources import Node, Resources
from wsss_ray.training.order import Order
from wsss_ray.training.plan import allocate, describe
from wsss_ray.training.sources import Survey


def resources(cpus: float, gpus: float = 0, *, nodes: int = 1) -> Resources:
    return Resources(nodes=(Node(cpus=cpus, gpus=gpus),) * nodes)


@pytest.mark.parametrize(
    ("there", "ray", "workers", "cpus", "gpus", "feed", "threads"),
    [
        (resources(2), RayConfig(), 1, 0.79, 0, 1, 1),
        (resources(2), RayConfig(actors=2), 2, 0.39, 0, 1, 1),
        (resources(1), RayConfig(), 1, 0.29, 0, 0.5, 1),
        (resources(8), RayConfig(), 1, 6.79, 0, 1, 6),
        (resources(64, 4), RayConfig(), 4, 1, 1, 1, 1),
        (resources(64, 4), RayConfig(actors=2), 2, 1, 1, 1, 1),
        (resources(2), RayConfig(actors=2, cpus_per_actor=0.5), 2, 0.5, 0, 0.79, 1),
        (resources(0.5), RayConfig(actors=4, gpus_per_actor=1, wait_for_nodes=True), 4, 1, 1, 1, 1),
        (resources(8, nodes=2), RayConfig(), 1, 6.79, 0, 1, 6),
        (resources(8, nodes=2), RayConfig(actors=2), 2, 6.79, 0, 1, 6),
        (resources(8, nodes=2), RayConfig(actors=4), 4, 3.39, 0, 1, 3),
        (resources(1, nodes=2), RayConfig(actors=2, cpus_per_actor=0.6), 2, 0.6, 0, 0.19, 1),
        (resources(2, 2, nodes=2), RayConfig(), 4, 0.89, 1, 0.1, 1),
    ],
)
def test_workers_and_tasks_fit_together(
    there: Resources, ray: RayConfig, workers: int, cpus: float, gpus: float, feed: float, threads: int
) -> None:
    allocation = allocate(configure("f", "o", batch_size=8, ray=ray), there)
    assert (allocation.workers.actors, allocation.workers.gpus, allocation.threads) == (workers, gpus, threads)
    assert allocation.workers.cpus == pytest.approx(cpus, abs=0.02)
    assert allocation.feed_cpus == pytest.approx(feed, abs=0.02)


def test_workers_that_leave_nothing_for_the_feed_are_refused() -> None:
    with pytest.raises(ValueError, match="the pools need"):
        allocate(configure("f", "o", ray=RayConfig(actors=2, cpus_per_actor=1)), resources(2))


@pytest.mark.parametrize("ray", [RayConfig(cpus_per_actor=12), RayConfig(actors=3, cpus_per_actor=5)])
def test_workers_larger_than_what_a_node_has_are_refused(ray: RayConfig) -> None:
    with pytest.raises(ValueError, match=r"do not fit on 2 nodes x [(]8 cores, 0 GPUs[)]: each must fit on one"):
        allocate(configure("f", "o", batch_size=6, ray=ray), resources(8, nodes=2))


@pytest.mark.parametrize("wait_for_nodes", [False, True])
def test_workers_that_would_share_a_gpu_are_refused(wait_for_nodes: bool) -> None:
    ray = RayConfig(actors=2, gpus_per_actor=0.5, cpus_per_actor=1, wait_for_nodes=wait_for_nodes)
    with pytest.raises(ValueError, match=r"2 training workers with 0.5 GPUs each .* NCCL refuses: .*gpus-per-actor 1"):
        allocate(configure("f", "o", ray=ray), resources(8, 2))


def test_one_worker_may_share_its_gpu_with_another_job() -> None:
    layout = allocate(configure("f", "o", ray=RayConfig(actors=1, gpus_per_actor=0.5)), resources(8, 1))
    assert (layout.workers.actors, layout.workers.gpus) == (1, 0.5)


def test_a_cluster_still_to_grow_does_not_tell_whether_it_will_have_gpus() -> None:
    with pytest.raises(ValueError, match=r"needs --ray[.]actors and --ray[.]gpus-per-actor"):
        allocate(configure("f", "o", ray=RayConfig(actors=4, wait_for_nodes=True)), resources(8))


@pytest.mark.parametrize(
    ("there", "fields", "on_cpus", "noted"),
    [
        (resources(8), {}, True, True),
        (resources(8), {"device": "cpu"}, True, False),
        (resources(8), {"ray": RayConfig(gpus_per_actor=0)}, True, False),
        (resources(8, 1), {}, False, False),
    ],
)
def test_the_plan_says_that_it_trains_on_cpus(there: Resources, fields: dict, on_cpus: bool, noted: bool) -> None:
    config = configure("f", "o", **{"ray": RayConfig(), **fields})
    order = Order(rows=[8], left_out={}, seed=0, batch_size=4, window=1024)
    text = describe(config, order, Survey(), allocate(config, there), start=0)
    assert (", on CPUs;" in text) == on_cpus
    assert ("--ray.wait-for-nodes --ray.actors N --ray.gpus-per-actor 1" in text) == noted


def test_a_device_without_gpus_takes_none() -> None:
    allocation = allocate(configure("f", "o", device="cpu", ray=RayConfig()), resources(8, 2))
    assert (allocation.workers.gpus, allocation.workers.actors) == (0, 1)
