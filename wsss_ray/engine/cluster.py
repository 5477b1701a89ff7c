"""Connect to Ray or start it, and size the pools by what the cluster has."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from ray._private import ray_constants

from wsss_ray.config import RayConfig
from wsss_ray.errors import JobError, Terminated
from wsss_ray.storage.storage import Storage

logger = logging.getLogger(__name__)

WORKER_ENVIRONMENT = {
    # glibc keeps large tensors' pages: without this, a third of SAM's time on a CPU is page faults.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_ARENA_MAX": "1",  # the pages of further arenas, one for each thread, are given back and faulted in again
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # who holds no GPU sees none, or `auto` would take another actor's
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # one bar per actor and checkpoint would bury the status line
}
"""Environment of every worker process."""

READ_CPUS = 0.1
"""Cores that a read task reserves: it waits for storage rather than computes."""

_SLACK = 1e-6
"""Of sums of fractions."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A pool of equal actors."""

    actors: int
    cpus: float
    """Cores per actor."""
    gpus: float
    """GPUs per actor."""

    def __str__(self) -> str:
        """For the plan: "2 actors x (1 core, 0 GPU)"."""
        plural = "s" if self.actors != 1 else ""
        return f"{self.actors} actor{plural} x ({self.cpus:g} cores, {self.gpus:g} GPUs)"


@dataclass(frozen=True, kw_only=True)
class Node:
    """What one machine of a cluster has."""

    cpus: float
    gpus: float

    def places(self, cpus: float, gpus: float) -> int:
        """How many actors of so many cores and GPUs it holds."""
        held = self.cpus / cpus + _SLACK
        return int(min(held, self.gpus / gpus + _SLACK) if gpus else held)


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a cluster has. An actor or a task lies on one node, so sums alone do not tell what finds a place."""

    nodes: tuple[Node, ...]

    @property
    def cpus(self) -> float:
        """Cores of all nodes."""
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        """GPUs of all nodes."""
        return sum(node.gpus for node in self.nodes)

    @property
    def most_cpus(self) -> float:
        """Cores of the node that has most."""
        return max((node.cpus for node in self.nodes), default=0.0)

    def share(self, actors: int, *, gpus: float, spared: float) -> float:
        """The most cores that each of so many actors, with so many GPUs, may hold where each node spares some.

        0 where they find no place at all.
        """
        kinds = Counter(Node(cpus=max(0.0, node.cpus - spared), gpus=node.gpus) for node in self.nodes)
        shares = {node.cpus / places for node in kinds if node.cpus for places in range(1, actors + 1)}
        fits = [one for one in shares if sum(n * node.places(one, gpus) for node, n in kinds.items()) >= actors]
        return max(fits, default=0.0)

    def without(self, pool: Pool) -> Resources | None:
        """What is left where the pool's actors are spread evenly; None where not all of them find a place."""
        left = list(self.nodes)
        for _ in range(pool.actors):
            roomy = [place for place, node in enumerate(left) if node.places(pool.cpus, pool.gpus)]
            if not roomy:
                return None
            place = max(roomy, key=lambda place: left[place].cpus)
            left[place] = Node(cpus=left[place].cpus - pool.cpus, gpus=left[place].gpus - pool.gpus)
        return Resources(nodes=tuple(left))

    def __str__(self) -> str:
        """For errors: "2 nodes x (8 cores, 1 GPUs)"."""
        kinds = Counter(self.nodes).items()
        return ", ".join(f"{n} node{'s' * (n != 1)} x ({one.cpus:g} cores, {one.gpus:g} GPUs)" for one, n in kinds)


@contextmanager
def connect(config: RayConfig) -> Iterator[Resources]:
    """Join the cluster that the configuration or RAY_ADDRESS names, or start a Ray of this machine's own.

    A Ray of its own listens on 127.0.0.1 alone and ends with the block; a joined cluster (or a Ray that this process
    had started before) is left as it is.

    Raises:
        JobError: there is no Ray to be had.
    """
    address = config.address or os.environ.get("RAY_ADDRESS")
    started = not ray.is_initialized()
    if started:
        _init(address)
    _end_in_order()  # after ray.init, whose own handler dumps the native stack
    try:
        there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        yield Resources(nodes=tuple(Node(cpus=one.get("CPU", 0.0), gpus=one.get("GPU", 0.0)) for one in there))
    finally:
        if started:
            ray.shutdown()


def _init(address: str | None) -> None:
    """Connect this process; whatever Ray raises (a bare Exception, at times) becomes a JobError."""
    try:
        if address:
            environment = {"env_vars": WORKER_ENVIRONMENT}
            ray.init(address=address, runtime_env=environment, logging_level=logging.WARNING)
            return
        prepare_local_ray()
        ray.init(address="local", _node_ip_address="127.0.0.1", include_dashboard=False, logging_level=logging.WARNING)
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        if address:
            raise JobError(
                f"cannot join the cluster at {address}: {reason}. Check that it runs, that --ray.address or "
                "RAY_ADDRESS names it, and that RAY_AUTH_MODE and the token are its own."
            ) from error
        raise JobError(f"Ray cannot start on this machine: {reason}. On a very busy one, try again later.") from error


def warn_of_local_paths(resources: Resources, *places: Storage) -> None:
    """Say so where several nodes are to read or write a path that each would look for on its own disk."""
    if len(resources.nodes) > 1 and any(place.is_local for place in places):
        logger.warning("%d nodes: local paths must be on storage that all of them share.", len(resources.nodes))


def _end_in_order() -> None:
    """Let SIGTERM unwind the job, as an interrupt does, where this is the process's main thread."""

    def terminate(number: int, frame: object) -> None:  # noqa: ARG001 - what signal handlers are called with
        raise Terminated

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)


def prepare_local_ray() -> None:
    """Set what a Ray that is about to start on this machine takes from the environment. It then

    - listens on 127.0.0.1 alone. Ray replaces 127.0.0.1 by the machine's outer address, and then listens on every
      interface, unless it believes that it cannot form clusters; it reads this once on import, its own processes read
      it from the environment;
    - keeps processes that have no task for a minute, rather than a second. It ends idle ones beyond the number of
      cores; with few cores that is nearly all between two tasks, and starting one again takes some two seconds of a
      core, several times what the task itself does;
    - hands WORKER_ENVIRONMENT to its workers by inheritance: a `runtime_env` would let those that it starts in advance
      go unused.
    """
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "60000")
    os.environ.update(WORKER_ENVIRONMENT)


def uses_gpus(config: RayConfig, gpus: float) -> bool:
    """Whether model actors will hold GPUs: what the configuration says, else whether the cluster has `gpus` now."""
    return config.gpus_per_actor > 0 if config.gpus_per_actor is not None else gpus > 0


def model_pool(config: RayConfig, resources: Resources, *, actors: int | None = None) -> Pool:
    """Size a pool of model actors: what the configuration says, else one actor per GPU, else one per core.

    Raises:
        ValueError: nodes are still to come, so that what is there now cannot say how many actors there should be.
    """
    if config.wait_for_nodes and (config.actors is None or config.gpus_per_actor is None):
        raise ValueError(
            "--ray.wait-for-nodes needs --ray.actors and --ray.gpus-per-actor (0 for nodes without GPUs): the cluster "
            "as it is now does not tell what it will grow to."
        )
    gpus = config.gpus_per_actor if config.gpus_per_actor is not None else float(uses_gpus(config, resources.gpus))
    wanted = actors or config.actors
    if wanted is None:
        wanted = sum(int(node.gpus / gpus + _SLACK) if gpus else int(node.cpus) for node in resources.nodes)
        wanted = max(1, wanted)
    cpus = config.cpus_per_actor
    if cpus is None and config.wait_for_nodes:
        cpus = 1.0
    elif cpus is None:
        share = resources.share(wanted, gpus=gpus, spared=2 * READ_CPUS)
        cpus = min(1.0, share) if gpus else share
        cpus = max(0.01, round(cpus - 0.005, 2))
    return Pool(actors=wanted, cpus=cpus, gpus=gpus)


def check_pools(pools: list[Pool], resources: Resources, config: RayConfig) -> None:
    """Refuse pools that the cluster can never hold, at once: Ray itself would wait in silence.

    Raises:
        ValueError: names what is asked for, what there is, and what to change.
    """
    if config.wait_for_nodes:
        return
    for resource, asked, there in (
        ("cores", sum(pool.actors * pool.cpus for pool in pools) + READ_CPUS, resources.cpus),
        ("GPUs", sum(pool.actors * pool.gpus for pool in pools), resources.gpus),
    ):
        if asked > there + 1e-6:
            raise ValueError(
                f"the pools need {asked:g} {resource}, but the cluster has {there:g}. Lower --ray.actors, "
                "--ray.cpus-per-actor or --ray.gpus-per-actor, or, where an autoscaler will add nodes, give "
                "--ray.wait-for-nodes."
            )
    left = resources
    for pool in pools:
        rest = left.without(pool)
        if rest is None:
            raise ValueError(
                f"there is no place for {pool} on {resources}: each must fit on one node. Lower --ray.actors, "
                "--ray.cpus-per-actor or --ray.gpus-per-actor, or, where an autoscaler will add nodes, give "
                "--ray.wait-for-nodes."
            )
        left = rest
