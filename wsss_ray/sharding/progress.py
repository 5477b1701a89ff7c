"""The status line of a shard job."""

from __future__ import annotations

import time
from collections.abc import Sequence

from wsss_ray.sharding.writing import ShardReport, ShardTask


class Progress:
    """Counts finished shards against a run's tasks, and says how far it is."""

    def __init__(self, tasks: Sequence[ShardTask]) -> None:
        """Start the clock."""
        self._shards = len(tasks)
        self._images = sum(len(task.items) for task in tasks)
        self._bytes = sum(_size(task) for task in tasks)
        self._start = time.monotonic()
        self._done = self._done_images = self._done_bytes = self._rejected = 0

    def add(self, task: ShardTask, report: ShardReport) -> None:
        """Count a finished shard."""
        self._done += 1
        self._done_images += report.images
        self._done_bytes += _size(task)
        self._rejected += len(report.rejected)

    def __str__(self) -> str:
        """The line."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        left = seconds * (self._bytes - self._done_bytes) / self._done_bytes if self._done_bytes else None
        return (
            f"shards {self._done}/{self._shards} | images {self._done_images:,}/{self._images:,} | "
            f"{self._done_images / seconds:.0f} images/s, {self._done_bytes / seconds / 1e6:.1f} MB/s | "
            f"rejected {self._rejected} | left {'-' if left is None else _clock(left)}"
        )


def _size(task: ShardTask) -> int:
    return sum(item.size or 0 for item in task.items)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
