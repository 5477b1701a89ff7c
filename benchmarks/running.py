"""Run the engine and record when units finish, the CPU time of the processes and the use of the object store."""

from __future__ import annotations

import contextlib
import os
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private.internal_api import get_memory_info_reply, get_state_from_address

from wsss_ray.engine.own_ray import prepare_local_ray
from wsss_ray.engine.progress import Progress


def start_ray(*, gpus: int = 0) -> None:
    """Start a local Ray with fake GPUs; workers have the allocator settings of the jobs and one thread."""
    os.environ["OMP_NUM_THREADS"] = "1"
    prepare_local_ray()
    ray.init(
        address="local",
        num_gpus=gpus,
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        logging_level="WARNING",
        _node_ip_address="127.0.0.1",
    )


class Recorder(Progress):
    """Progress that records when units finished, and the CPU time of the processes at that moment."""

    def __init__(self, *, total: int) -> None:
        super().__init__(total=total, done=0, every_seconds=10)
        self.finished: list[tuple[float, int]] = []
        self.consumed: list[tuple[float, int]] = []
        """Some moments of `finished`, in CPU seconds of all processes instead of clock time."""
        self._looked = 0.0
        self._processes = Processes()

    def add(self, images: int, **counts: Any) -> None:
        """Count a unit."""
        super().add(images, **counts)
        moment = time.monotonic()
        self.finished.append((moment, self.images))
        if moment - self._looked >= 1:  # reading all processes takes milliseconds
            self._looked = moment
            self.consumed.append((self._processes.seconds(), self.images))

    @property
    def steady_rate(self) -> float:
        """Return the images per second while 15 to 85 % of the images were finished."""
        return self._rate(self.finished)

    @property
    def steady_cpu(self) -> float:
        """Return the CPU seconds of all processes per image in the same interval, in which few start or end."""
        return 1 / self._rate(self.consumed)

    def _rate(self, moments: list[tuple[float, int]]) -> float:
        """Return the slope of the line through all moments.

        Actors that finish several units at once make steps, whose number between the first and last moment is random.
        """
        inside = [(moment, done) for moment, done in moments if 0.15 * self.total <= done <= 0.85 * self.total]
        if len(inside) < 2:
            raise SystemExit("too few units were finished for a steady rate: give it more images")
        return statistics.linear_regression(*zip(*inside, strict=True)).slope


@dataclass
class Memory:
    """MB, sampled every second."""

    store: list[float]
    """Used part of the object store."""
    driver: list[float]
    """Resident memory of this process."""


@contextlib.contextmanager
def watching_memory() -> Iterator[Memory]:
    """Sample memory while the block runs."""
    memory = Memory(store=[0.0], driver=[resident_mb()])
    stop = threading.Event()
    state = get_state_from_address(ray.get_runtime_context().gcs_address)

    def watch() -> None:
        while not stop.wait(1.0):
            memory.store.append(get_memory_info_reply(state).store_stats.object_store_bytes_used / 1e6)
            memory.driver.append(resident_mb())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        stop.set()
        thread.join()


def resident_mb() -> float:
    """Return the resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def below(pid: int) -> list[int]:
    """Return the descendants of a process: those of this Ray only."""
    children = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children += [int(child) for child in file.read_text().split()]
    return [found for child in children for found in (child, *below(child))]


class Processes:
    """Return this process and its descendants, including those that ended."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, str], float] = {}

    def seconds(self) -> float:
        """Return the CPU seconds of all processes that were ever seen, each at its last reading."""
        fields: dict[int, list[str]] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                text = path.read_text()
            except OSError:  # ended meanwhile
                continue
            fields[int(path.parent.name)] = text.rpartition(")")[2].split()
        wanted = [os.getpid()]
        while wanted:
            pid = wanted.pop()
            if pid in fields:
                began, ticks = fields[pid][19], sum(float(value) for value in fields[pid][11:13])
                self._seen[pid, began] = ticks / os.sysconf("SC_CLK_TCK")
                wanted += [child for child, values in fields.items() if int(values[1]) == pid]
        return sum(self._seen.values())
