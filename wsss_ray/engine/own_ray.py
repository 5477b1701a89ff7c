"""A Ray that the job starts for itself: its environment, and the end of the job when one of its processes is lost."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from ray._private import ray_constants
from ray._private.node import Node
from ray._private.worker import global_worker

from wsss_ray.errors import INTERRUPTED, is_terminating

WORKER_ENVIRONMENT = {
    # glibc keeps the pages of large tensors: without this, a third of SAM's time on a CPU is page faults.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_ARENA_MAX": "1",  # pages of further arenas, one for each thread, are given back and faulted in again
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a worker without a GPU sees none: `auto` must not take another's
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # one bar per actor and checkpoint would hide the status line
}
"""Environment of every worker process."""

_WATCHED = {ray_constants.PROCESS_TYPE_GCS_SERVER: "GCS", ray_constants.PROCESS_TYPE_RAYLET: "raylet"}
_SIGNAL_SECONDS = 0.2
"""Seconds within which this process handles a signal that was sent to all processes of the job."""


def prepare_local_ray() -> None:
    """Set the environment of a Ray that is about to start on this machine. It then

    - listens on 127.0.0.1 alone. Ray replaces 127.0.0.1 by the machine's outer address, and then listens on every
      interface, unless it believes that it cannot form clusters; it reads this once on import, its own processes read
      it from the environment;
    - keeps idle processes for a minute instead of a second. It ends idle ones beyond the number of cores; with few
      cores that is nearly all between two tasks, and a start takes some two seconds of a core;
    - passes WORKER_ENVIRONMENT to its workers by inheritance: with a `runtime_env`, processes that it starts in advance
      would stay unused.
    """
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "60000")
    os.environ.update(WORKER_ENVIRONMENT)


@contextmanager
def watched() -> Iterator[None]:
    """End this process at once, with one line, when its own Ray loses its GCS or raylet while the block runs.

    Ray by itself would wait a minute for a lost GCS, then abort, and leave its agents running. Nothing is lost by
    ending at once: files appear whole or not at all. Linux only; elsewhere Ray's own end remains.
    """
    node = global_worker.node
    lost = _open_processes(node) if node is not None else {}
    if node is None or not lost:
        yield
        return
    done, finish = os.pipe()
    session = node.get_session_dir_path()
    thread = threading.Thread(target=_watch, args=(lost, done, session), name="watch-ray", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.write(finish, b".")
        thread.join()
        for descriptor in (*lost, done, finish):
            os.close(descriptor)


def _open_processes(node: Node) -> dict[int, str]:
    """Return descriptors that are ready once a process has ended, with its name; none on an old kernel."""
    opened: dict[int, str] = {}
    with suppress(AttributeError, OSError):
        for kind, name in _WATCHED.items():
            opened[os.pidfd_open(node.all_processes[kind][0].process.pid)] = name
    return opened


def _watch(processes: dict[int, str], done: int, session: str) -> None:
    """Wait for the end of a process or of the block."""
    poll = select.poll()
    for descriptor in (*processes, done):
        poll.register(descriptor, select.POLLIN)
    ready = {descriptor for descriptor, _ in poll.poll()}
    if done not in ready:
        _end(processes[min(ready)], session)


def _end(name: str, session: str) -> NoReturn:
    """End this process and all that belongs to its Ray."""
    is_terminating.wait(_SIGNAL_SECONDS)
    _kill_session(session)
    if is_terminating.is_set():
        print(INTERRUPTED, file=sys.stderr, flush=True)
        os._exit(128 + signal.SIGTERM)
    print(
        f"error: the {name} process of this job's Ray was lost: killed, short of memory, or starved on a very busy "
        "machine. Finished work is kept; the same command continues from there.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


def _kill_session(session: str) -> None:
    """Kill the processes whose command line names the folder of this Ray's session; its workers end with the raylet."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int(entry.name) != os.getpid() and session.encode() in (entry / "cmdline").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)
