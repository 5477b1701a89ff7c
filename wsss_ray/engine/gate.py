"""A gate for the units of one process: several pass together, or one alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Lets units pass together, or one alone."""

    def __init__(self) -> None:
        """Start open."""
        self._condition = threading.Condition()
        self._inside = 0
        self._closed = False

    @contextmanager
    def together(self) -> Iterator[bool]:
        """Enter beside others; yields whether no other thread was inside."""
        with self._condition:
            self._condition.wait_for(lambda: not self._closed)
            first = self._inside == 0
            self._inside += 1
        try:
            yield first
        finally:
            with self._condition:
                self._inside -= 1
                self._condition.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Enter alone: wait until all others have left, and let no other thread in."""
        with self._condition:
            self._condition.wait_for(lambda: not self._closed)
            self._closed = True
            self._condition.wait_for(lambda: self._inside == 0)
        try:
            yield
        finally:
            with self._condition:
                self._closed = False
                self._condition.notify_all()
