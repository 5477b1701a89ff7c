"""Connect to a Ray cluster, or start a Ray on this machine."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray._private import ray_constants

from wsss_ray.config import RayConfig
from wsss_ray.engine.resources import Node, Resources
from wsss_ray.errors import JobError, Terminated
from wsss_ray.storage.storage import Storage

logger = logging.getLogger(__name__)

WORKER_ENVIRONMENT = {
    # glibc keeps the pages of large tensors: without this, a third of SAM's time on a CPU is page faults.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_ARENA_MAX": "1",  # pages of further arenas, one for each thread, are given back and faulted in again
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a worker without a GPU sees none: `auto` must not take another's
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # one bar per actor and checkpoint would hide the status line
}
"""Environment of every worker process."""

IN_PROCESS_IMAGES = 256
"""Images up to which a job without models runs in its own process: starting Ray takes longer than the work."""


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
    if started:
        _init(address)
    _unwind_on_sigterm()  # after ray.init, whose own handler dumps the native stack
    try:
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        yield Resources(nodes=tuple(Node(cpus=one.get("CPU", 0.0), gpus=one.get("GPU", 0.0)) for one in alive))
    finally:
        if started:
            ray.shutdown()


@contextmanager
def connect_for(images: int, config: RayConfig) -> Iterator[Resources | None]:
    """Connect as `connect` does where the job is large enough; yield None where it is to run in this process.

    A job without models runs in this process when it has at most IN_PROCESS_IMAGES images, no cluster is named or
    connected, and the configuration says nothing about actors. A file that kills its decoder then kills the job;
    `--ray.actors 1` runs the same job on Ray, which survives that and names the file.

    Args:
        images: images that are to be worked on.
        config: names a cluster, or the number and size of the tasks.
    """
    if _runs_in_process(images, config):
        _unwind_on_sigterm()
        yield None
    else:
        with connect(config) as resources:
            yield resources


def _runs_in_process(images: int, config: RayConfig) -> bool:
    return images <= IN_PROCESS_IMAGES and config == RayConfig() and not uses_cluster(config)


def uses_cluster(config: RayConfig) -> bool:
    """Return whether a cluster is named, or this process is connected already."""
    return bool(config.address or os.environ.get("RAY_ADDRESS") or ray.is_initialized())


def machine_has_gpus() -> bool:
    """Return whether this machine has GPUs, for work that finds nothing to do and therefore starts no Ray."""
    if sys.platform == "linux" and not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg")):
        return False  # no driver, of Linux or of the Windows below it: PyTorch need not be imported
    import torch  # noqa: PLC0415 - takes seconds, which a joined cluster does not need

    return torch.cuda.is_available()


def _init(address: str | None) -> None:
    """Connect this process. Any exception of Ray's, at times a bare Exception, becomes a JobError."""
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


def warn_of_local_paths(resources: Resources | None, *folders: Storage) -> None:
    """Warn where several nodes are to use a local path, which each of them looks up on its own disk."""
    if resources is not None and len(resources.nodes) > 1 and any(folder.is_local for folder in folders):
        logger.warning("%d nodes: local paths must be on storage that all of them share.", len(resources.nodes))


def _unwind_on_sigterm() -> None:
    """Let SIGTERM end the job as an interrupt does, where this is the main thread."""

    def terminate(number: int, frame: object) -> None:  # noqa: ARG001 - the arguments of signal handlers
        raise Terminated

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)


def prepare_local_ray() -> None:
    """Set the environment of a Ray that is about to start on this machine. It then

    - listens on 127.0.0.1 alone. Ray replaces 127.0.0.1 by the machine's outer address, and then listens on every
      interface, unless it believes that it cannot form clusters; it reads this once on import, its own processes read
      it from the environment;
    - keeps idle processes for a minute instead of a second. It ends idle ones beyond the number of cores; with few
      cores that is nearly all between two tasks, and a start takes some two seconds of a core;
    - hands WORKER_ENVIRONMENT to its workers by inheritance: with a `runtime_env`, processes that it starts in advance
      would stay unused.
    """
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "60000")
    os.environ.update(WORKER_ENVIRONMENT)
