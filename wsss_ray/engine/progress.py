"""The status line of a job: images done, speed and time left, readable on a terminal and in a job's log."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

_TOGETHER = 0.2
"""Seconds within which units count as finished at the same moment, as those of one task are."""


@dataclass(frozen=True, kw_only=True)
class Activity:
    """Activity of the workers of a run."""

    loaded: Mapping[str, int]
    """Actors that have loaded their models, by stage."""
    images: int
    """Images done in unfinished units."""

    def __str__(self) -> str:
        """Return the text for the time before the first unit is finished."""
        return "models are loaded, the first units are at work" if all(self.loaded.values()) else "loading models"


class Progress:
    """Counts the images of finished units and prints a line every few seconds."""

    def __init__(
        self,
        *,
        total: int,
        done: int,
        every_seconds: float,
        total_bytes: int | None = None,
        failed_word: str = "failed",
    ) -> None:
        """Start the clock.

        Args:
            total: images of the whole job.
            done: images that earlier runs finished.
            every_seconds: pause between two lines.
            total_bytes: bytes to read in this run, where they predict the time left better than the number of images.
            failed_word: what happened to an image that is counted as failed.
        """
        self.total = total
        self.done_before = done
        self.images = 0
        self.failed = 0
        self.boxes: int | None = None
        self.seconds: Counter[str] = Counter()
        self.activity: Callable[[], Activity | None] | None = None
        """Returns what the workers are doing; None where that is not known."""
        self._every = every_seconds
        self._total_bytes = total_bytes
        self._bytes = 0
        self._failed_word = failed_word
        self._start = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._lock = threading.Lock()

    def add(
        self,
        images: int,
        *,
        failed: int = 0,
        boxes: int | None = None,
        seconds: Mapping[str, float] | None = None,
        size: int = 0,
    ) -> None:
        """Count a finished unit.

        Args:
            images: images of the unit.
            failed: those of them that failed.
            boxes: boxes that were found; None for work without boxes.
            seconds: seconds of the workers, by part of the work.
            size: bytes of the unit, with `total_bytes`.
        """
        with self._lock:
            self.images += images
            self.failed += failed
            if boxes is not None:
                self.boxes = (self.boxes or 0) + boxes
            self.seconds.update(seconds or {})
            self._bytes += size
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
        """Images per second, measured from the first finished units on, so that the start of the workers is left out.

        Where only those are finished, it is measured from the start.
        """
        if self._first is None:
            return 0.0
        since, counted = self._first
        if self.images > counted:
            return (self.images - counted) / max(time.monotonic() - since, 1e-9)
        return self.images / max(self.elapsed, 1e-9)

    def line(self) -> str:
        """Return the status line."""
        activity = self.activity() if self.activity and self.done_before + self.images < self.total else None
        with self._lock:
            done = self.done_before + self.images
            share = done / self.total if self.total else 1.0
            head = f"{done:,} / {self.total:,} images ({share:.1%})"
            if activity is not None and activity.images:
                head += f" and {activity.images:,} in unfinished units"
            if self.images == 0:
                return f"{head} | {activity or 'starting'}, {self.elapsed:.0f} s so far"
            parts = [head, f"{self.rate:.1f} images/s"]
            if self._total_bytes is not None:
                parts[-1] += f", {self._bytes / max(self.elapsed, 1e-9) / 1e6:.1f} MB/s"
            if self.boxes is not None:
                parts.append(f"{self.boxes / self.images:.1f} boxes/image")
            parts.append(f"{self.failed} {self._failed_word}")
            return " | ".join([*parts, f"{format_seconds(self._left(done))} left"])

    def _left(self, done: int) -> float:
        """Return the seconds left at the present speed."""
        if self._total_bytes is not None and self._bytes:
            return self.elapsed * (self._total_bytes - self._bytes) / self._bytes
        return (self.total - done) / self.rate if self.rate else 0.0

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
    """Return hours, minutes and seconds: "1:02:03"."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
