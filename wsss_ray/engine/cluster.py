"""Connect to a Ray cluster, or start a Ray on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import ray
from ray._private import accelerators

from wsss_ray.config import RayConfig
from wsss_ray.engine.own_ray import WORKER_ENVIRONMENT, prepare_local_ray, watched
from wsss_ray.engine.resources import Node, Resources
from wsss_ray.errors import JobError, Terminated, unwind_on_sigterm
from wsss_ray.storage.storage import Storage

logger = logging.getLogger(__name__)

IN_PROCESS_IMAGES = 256
"""Images up to which a job without models runs in its own process: starting Ray takes longer than the work."""

_KIND = "accelerator_type:"
"""Prefix of the resource that names the kind of a node's GPUs."""


@contextmanager
def connect(config: RayConfig) -> Iterator[Resources]:
    """Join the cluster that the configuration or RAY_ADDRESS names, or start a Ray on this machine.

    A Ray that is started here listens on 127.0.0.1 alone and ends with the block. A joined cluster, or a Ray that this
    process started before, stays as it is.

    Raises:
        JobError: Ray cannot be joined or started.
    """
    address = config.address or os.environ.get("RAY_ADDRESS")
    started = not ray.is_initialized()
    with ExitStack() as stack:
        if started:
            stack.callback(ray.shutdown)
            _init(address)
        unwind_on_sigterm()  # after ray.init, whose own handler dumps the native stack
        if started and not address:
            stack.enter_context(watched())
        yield Resources(nodes=tuple(_node(node["Resources"]) for node in ray.nodes() if node["Alive"]))


def _node(resources: Mapping[str, float]) -> Node:
    """Return a node by its resources, among which Ray counts `accelerator_type:<kind of its GPUs>`."""
    kinds = [name.removeprefix(_KIND) for name in resources if name.startswith(_KIND)]
    gpus = resources.get("GPU", 0.0)
    return Node(cpus=resources.get("CPU", 0.0), gpus=gpus, gpu_kind=kinds[0] if gpus and kinds else None)


@contextmanager
def connect_for(images: int, config: RayConfig) -> Iterator[Resources | None]:
    """Connect to Ray as `connect` does, or yield None for a small job, which runs in this process.

    A job without models runs in this process when it has at most IN_PROCESS_IMAGES images, no cluster is named or
    connected, and the configuration says nothing about actors. A file that kills its decoder then kills the job;
    `--ray.actors 1` runs the same job on Ray, which survives that and names the file.

    Args:
        images: images that are to be worked on.
        config: names a cluster, or the number and size of the tasks.
    """
    if _runs_in_process(images, config):
        unwind_on_sigterm()
        yield None
    else:
        with connect(config) as resources:
            yield resources


def _runs_in_process(images: int, config: RayConfig) -> bool:
    return images <= IN_PROCESS_IMAGES and config == RayConfig() and not uses_cluster(config)


def uses_cluster(config: RayConfig) -> bool:
    """Return whether a cluster is named, or this process is connected already."""
    return bool(config.address or os.environ.get("RAY_ADDRESS") or ray.is_initialized())


def this_machine() -> Resources:
    """Return the cores and GPUs that a Ray on this machine would have, before it is started.

    GPUs are counted as Ray counts them, by the driver: whether CUDA starts on them is another question.
    """
    manager = accelerators.get_accelerator_manager_for_resource("GPU")
    assert manager is not None, "Ray knows NVIDIA's GPUs at least"
    visible = manager.get_current_process_visible_accelerator_ids()
    gpus = manager.get_current_node_num_accelerators()
    if visible is not None:
        gpus = min(gpus, len(visible))
    kind = manager.get_current_node_accelerator_type() if gpus else None
    return Resources(nodes=(Node(cpus=float(os.cpu_count() or 1), gpus=float(gpus), gpu_kind=kind),))


def _init(address: str | None) -> None:
    """Connect this process. Any exception of Ray's, at times a bare Exception, becomes a JobError."""
    try:
        if address:
            environment = {"env_vars": WORKER_ENVIRONMENT}
            ray.init(address=address, runtime_env=environment, logging_level=logging.WARNING)
            return
        prepare_local_ray()
        ray.init(address="local", _node_ip_address="127.0.0.1", include_dashboard=False, logging_level=logging.WARNING)
    except SystemExit:  # how Ray answers SIGTERM while it starts
        raise Terminated from None
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        if address:
            raise JobError(
                f"cannot join the cluster at {address}: {reason}. Check that it runs, that --ray.address or "
                "RAY_ADDRESS names it, and that RAY_AUTH_MODE and the token are its own."
            ) from error
        raise JobError(f"Ray cannot start on this machine: {reason}. On a very busy one, try again later.") from error


def warn_of_local_paths(resources: Resources | None, *folders: Storage) -> None:
    """Warn where several nodes are to use a local path, which each of them would look up on its own disk."""
    if resources is not None and len(resources.nodes) > 1 and any(folder.is_local for folder in folders):
        logger.warning("%d nodes: local paths must be on storage that all of them share.", len(resources.nodes))
