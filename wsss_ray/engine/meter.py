"""Times of the parts of the work, for reports. Needs no Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_NOTE_SECONDS = 1.0
"""Least pause between two messages about a unit's images."""


class Meter:
    """Seconds that a unit spent in each part of the work, and its images done so far. For reports only."""

    def __init__(self, on_images: Callable[[int], None] | None = None) -> None:
        """Start empty.

        Args:
            on_images: takes the number of images done, at most once a second.
        """
        self.seconds: dict[str, float] = {}
        self.images = 0
        self._on_images = on_images
        self._noted = 0.0

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Add the time of the block to `part`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(part, time.perf_counter() - start)

    def add(self, part: str, seconds: float) -> None:
        """Add seconds to `part`."""
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds

    def advance(self, images: int = 1) -> None:
        """Count images that are done, so that the status line moves inside a long unit."""
        self.images += images
        if self._on_images is not None and time.perf_counter() - self._noted >= _NOTE_SECONDS:
            self._noted = time.perf_counter()
            self._on_images(self.images)
