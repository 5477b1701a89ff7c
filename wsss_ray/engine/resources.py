"""Size the pools of actors by the resources of the cluster. Needs no Ray."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from wsss_ray.config import RayConfig

READ_CPUS = 0.1
"""Cores that a read task reserves: it waits for storage more than it computes."""

WITHOUT_BFLOAT16 = ("K80", "M60", "P4", "P40", "P100", "V100", "T4")
"""Kinds of GPU, as Ray names them, without native bfloat16."""

NO_GPUS = (
    "note: there are no GPUs here, so the work is done on CPUs; if an autoscaler adds nodes with GPUs, give "
    "--ray.wait-for-nodes --ray.actors N --ray.gpus-per-actor 1"
)
"""Line for a cluster without GPUs whose configuration says nothing about them."""

_SLACK = 1e-6
"""Rounding error of sums of fractions."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A pool of equal actors."""

    actors: int
    cpus: float
    """Cores per actor."""
    gpus: float
    """GPUs per actor."""

    def __str__(self) -> str:
        """Return the plan's text: "2 actors x (1 cores, 0 GPUs)"."""
        plural = "s" if self.actors != 1 else ""
        return f"{self.actors} actor{plural} x ({self.cpus:g} cores, {self.gpus:g} GPUs)"


@dataclass(frozen=True, kw_only=True)
class Node:
    """Cores and GPUs of one machine of a cluster."""

    cpus: float
    gpus: float
    gpu_kind: str | None = None
    """Kind of its GPUs by Ray's name ("A100", "T4"); None where it has none or Ray does not know."""

    def capacity(self, cpus: float, gpus: float) -> int:
        """Return how many actors of so many cores and GPUs fit on the node."""
        held = self.cpus / cpus + _SLACK
        return int(min(held, self.gpus / gpus + _SLACK) if gpus else held)


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Nodes of a cluster. An actor or a task runs on one node, so the sums alone do not decide what fits."""

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
    def has_bfloat16(self) -> bool:
        """Return whether all GPUs have native bfloat16, as far as Ray knows their kinds."""
        return not any(node.gpus and node.gpu_kind in WITHOUT_BFLOAT16 for node in self.nodes)

    @property
    def most_cpus(self) -> float:
        """Cores of the largest node."""
        return max((node.cpus for node in self.nodes), default=0.0)

    def share(self, actors: int, *, gpus: float, spared: float) -> float:
        """Return the most cores that each actor may hold, so that all of them fit; 0 where they do not fit.

        Args:
            actors: how many actors.
            gpus: GPUs of each.
            spared: cores of each node that stay free.
        """
        kinds = Counter(replace(node, cpus=max(0.0, node.cpus - spared)) for node in self.nodes)
        shares = {node.cpus / number for node in kinds if node.cpus for number in range(1, actors + 1)}
        fits = [one for one in shares if sum(n * node.capacity(one, gpus) for node, n in kinds.items()) >= actors]
        return max(fits, default=0.0)

    def without(self, pool: Pool) -> Resources | None:
        """Return what is left with the pool's actors spread evenly; None where not all of them fit."""
        left = list(self.nodes)
        for _ in range(pool.actors):
            roomy = [index for index, node in enumerate(left) if node.capacity(pool.cpus, pool.gpus)]
            if not roomy:
                return None
            index = max(roomy, key=lambda index: left[index].cpus)
            left[index] = replace(left[index], cpus=left[index].cpus - pool.cpus, gpus=left[index].gpus - pool.gpus)
        return Resources(nodes=tuple(left))

    def __str__(self) -> str:
        """Return the text for errors: "2 nodes x (8 cores, 1 GPUs)"."""
        kinds = Counter((node.cpus, node.gpus) for node in self.nodes).items()
        return ", ".join(f"{n} node{'s' * (n != 1)} x ({cpus:g} cores, {gpus:g} GPUs)" for (cpus, gpus), n in kinds)


def uses_gpus(config: RayConfig, gpus: float) -> bool:
    """Return whether model actors hold GPUs: the configuration decides, else whether the cluster has `gpus` now."""
    return config.gpus_per_actor > 0 if config.gpus_per_actor is not None else gpus > 0


def hardware(config: RayConfig, resources: Resources) -> dict[str, bool]:
    """Return what decides the devices and precisions of model actors: arguments of `models.precision.decide`."""
    return {"has_gpus": uses_gpus(config, resources.gpus), "has_bfloat16": resources.has_bfloat16}


def without_gpus(config: RayConfig) -> RayConfig:
    """Return the configuration of actors whose models run on the CPU: they hold no GPUs, unless it says otherwise."""
    return replace(config, gpus_per_actor=0.0) if config.gpus_per_actor is None else config


def model_pool(config: RayConfig, resources: Resources, *, actors: int | None = None) -> Pool:
    """Size a pool of model actors by the configuration, else one actor per GPU, else one per core.

    Raises:
        ValueError: nodes are still to be added, so the present nodes do not decide the number of actors.
    """
    if config.wait_for_nodes and (config.actors is None or config.gpus_per_actor is None):
        raise ValueError(
            "--ray.wait-for-nodes needs --ray.actors and --ray.gpus-per-actor (0 for nodes without GPUs): the size of "
            "the cluster now does not show what it will grow to."
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


_ADVICE = (
    "Lower --ray.actors, --ray.cpus-per-actor or --ray.gpus-per-actor, or, where an autoscaler will add nodes, give "
    "--ray.wait-for-nodes."
)


def check_pools(pools: list[Pool], resources: Resources, config: RayConfig) -> None:
    """Refuse pools that the cluster can never hold. Ray itself would wait without a message.

    Raises:
        ValueError: names what is needed, what the cluster has, and what to change.
    """
    if config.wait_for_nodes:
        return
    for resource, needed, available in (
        ("cores", sum(pool.actors * pool.cpus for pool in pools) + READ_CPUS, resources.cpus),
        ("GPUs", sum(pool.actors * pool.gpus for pool in pools), resources.gpus),
    ):
        if needed > available + _SLACK:
            raise ValueError(f"the pools need {needed:g} {resource}, but the cluster has {available:g}. {_ADVICE}")
    left = resources
    for pool in pools:
        rest = left.without(pool)
        if rest is None:
            raise ValueError(f"{pool} do not fit on {resources}: each must fit on one node. {_ADVICE}")
        left = rest
