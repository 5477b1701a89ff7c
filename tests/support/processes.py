"""Processes of this test session's own Ray, to be found by kind and killed."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import psutil

from wsss_ray.engine.stage import Stage
from wsss_ray.storage.storage import Storage


class SlowStorage(Storage):
    """Takes a while to open a file, the second shard until the kills are done: readers are there to be killed."""

    def __init__(self, uri: str, *, gate: Path) -> None:
        super().__init__(uri)
        self._gate = gate

    def open(self, path: str) -> BinaryIO:
        time.sleep(0.2)
        while path.startswith("shard-00001-") and not self._gate.exists():
            time.sleep(0.2)
        return super().open(path)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "gate": self._gate}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._gate = state["gate"]


class KillingStorage(Storage):
    """Kills the process that opens the second shard, as a file that crashes its reader does."""

    def open(self, path: str) -> BinaryIO:
        if path.startswith("shard-00001-"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().open(path)


def descendants() -> dict[int, str]:
    """Command lines of this process's children and theirs, by process id: no other Ray of this machine is among them.

    A worker of Ray shows what it runs: `ray::Ledger.begin`, `ray::MapBatches(read_task)`, `ray::IDLE`.
    """
    parents, lines = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                lines[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: lines[pid] for pid in found - {os.getpid()}}


def training_workers(pid: int) -> list[int]:
    """The processes below a process that are Ray Train's workers."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            for child in map(int, file.read_text().split()):
                name = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0]
                found += [child] if b"RayTrainWorker" in name else training_workers(child)
    return found


def listened(process: psutil.Process) -> set[str]:
    """Addresses on which the process and its descendants listen now."""
    found = set()
    for member in [process, *process.children(recursive=True)]:
        try:
            connections = member.net_connections("inet")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        found |= {entry.laddr.ip for entry in connections if entry.status == psutil.CONN_LISTEN}
    return found


def check_loopback(listening: set[str]) -> None:
    """None of these addresses can be reached from another machine."""
    assert listening, "the scan saw no socket at all"
    for address in listening:
        plain = ipaddress.ip_address(address)
        mapped = getattr(plain, "ipv4_mapped", None)
        assert (mapped or plain).is_loopback, address


def end_at_once() -> NoReturn:
    """Kill what is below this process, and end it as well: quicker than an orderly end, for tests of other things."""
    for pid in descendants():
        with contextlib.suppress(ProcessLookupError):  # it went with one before it
            os.kill(pid, signal.SIGKILL)
    os._exit(0)


def noted(make: Callable[[], Stage], log: Path) -> Stage:
    """Make a stage; the process that holds it is noted in the log."""
    with log.open("a") as file:
        file.write(f"{os.getpid()} started\n")
    return make()


def started(log: Path) -> set[int]:
    """Process ids that a stage noted in its log."""
    return {int(line.split()[0]) for line in log.read_text().splitlines()} if log.exists() else set()


@contextmanager
def killing(
    kinds: Mapping[str, Callable[[], set[int]]], *, times: int, seconds: tuple[float, float], when_done: Path
) -> Iterator[Counter[str]]:
    """While the block runs, kill -9 a random process of a random kind, again and again, `times` of each kind.

    Args:
        kinds: name of a kind to what finds its processes now.
        times: kills of each kind.
        seconds: shortest and longest pause between two kills.
        when_done: is made when all kills are done, for work that is to last as long.

    Yields:
        Kills so far, by kind.
    """
    killed: Counter[str] = Counter()
    stop = threading.Event()

    def run() -> None:
        draw = random.Random(0)
        dead: set[int] = set()
        while min(killed[kind] for kind in kinds) < times and not stop.wait(draw.uniform(*seconds)):
            waiting = [kind for kind in kinds if killed[kind] < times]
            kind = draw.choice(waiting)
            alive = sorted((kinds[kind]() & descendants().keys()) - dead)
            if alive:
                victim = draw.choice(alive)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    dead.add(victim)
                    killed[kind] += 1
        when_done.touch()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()
