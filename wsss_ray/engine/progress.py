"""The status line: what is done, how fast, what is left, readable on a terminal and in a job's log."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from wsss_ray.engine.worker import Report

_TOGETHER = 0.2
"""Seconds within which units count as finished at the same moment, as those of one task are."""


class Progress:
    """Counts finished units and prints a line every few seconds."""

    def __init__(self, *, total: int, done: int, every_seconds: float) -> None:
        """Count from `done` of `total` images on."""
        self.total = total
        self.done_before = done
        self.images = 0
        self.failed = 0
        self.boxes: int | None = None
        self.seconds: Counter[str] = Counter()
        self._every = every_seconds
        self._start = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._lock = threading.Lock()

    def add(self, report: Report) -> None:
        """Count a unit."""
        counts = report.counts or {}
        with self._lock:
            self.images += report.images
            self.failed += counts.get("statuses", {}).get("failed", 0)
            if "boxes" in counts:
                self.boxes = (self.boxes or 0) + counts["boxes"]
            self.seconds.update(report.seconds or {})
            now = time.monotonic()
            if self._first is None:
                self._first = (now, self.images)
            elif now - self._first[0] < _TOGETHER:
                self._first = (self._first[0], self.images)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    @property
    def rate(self) -> float:
        """Images per second: since the first units were finished, so that start-up does not dilute it, if more were."""
        if self._first is None:
            return 0.0
        since, counted = self._first
        if self.images > counted:
            return (self.images - counted) / max(time.monotonic() - since, 1e-9)
        return self.images / max(self.elapsed, 1e-9)

    def line(self) -> str:
        """The status line."""
        with self._lock:
            done = self.done_before + self.images
            share = done / self.total if self.total else 1.0
            head = f"{done:,} / {self.total:,} images ({share:.1%})"
            if self.images == 0:
                return f"{head} | starting, {self.elapsed:.0f} s so far"
            left = (self.total - done) / self.rate if self.rate else 0.0
            boxes = "" if self.boxes is None else f"{self.boxes / self.images:.1f} boxes/image | "
            return f"{head} | {self.rate:.1f} images/s | {boxes}{self.failed} failed | {format_seconds(left)} left"

    @contextmanager
    def printing(self) -> Iterator[None]:
        """Print the line every few seconds while the block runs, and once at its end."""
        stop = threading.Event()

        def run() -> None:
            while not stop.wait(self._every):
                print(self.line(), flush=True)

        thread = threading.Thread(target=run, name="status", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            print(self.line(), flush=True)


def format_seconds(seconds: float) -> str:
    """Hours, minutes and seconds: "1:02:03"."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
