"""Ray metrics of the workers, for Prometheus and deploy/grafana.json. They decide nothing.

Ray puts `ray_` before each name and adds the node and the session. Every metric carries the stage that reports it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
from ray.util import metrics

_WAIT_BOUNDS = [0.01, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800]

NAMES = {
    "wsss_ray_units_total": "Units committed.",
    "wsss_ray_images_total": "Images committed, by status.",
    "wsss_ray_boxes_total": "Boxes of committed images.",
    "wsss_ray_failures_total": "Images committed as failed, by the step that they failed in.",
    "wsss_ray_stage_seconds_total": "Actor seconds, by part of the work; `wait` is a device without work.",
    "wsss_ray_queue_wait_seconds": "How long a unit waited, read, for an actor of this stage.",
    "wsss_ray_device_memory_bytes": "Most memory that this process has held on its GPU.",
}
"""Every metric and its description."""


class WorkerMetrics:
    """The metrics of one actor."""

    def __init__(self, stage: str, device_memory: Callable[[], int] | None) -> None:
        """Register the metrics.

        Args:
            stage: name of the actor's stage.
            device_memory: returns the bytes held on the actor's device; None for a stage without a device.
        """
        self._stage = {"stage": stage}
        self._device_memory = device_memory
        self._units = _counter("wsss_ray_units_total")
        self._images = _counter("wsss_ray_images_total", "status")
        self._boxes = _counter("wsss_ray_boxes_total")
        self._failures = _counter("wsss_ray_failures_total", "step")
        self._seconds = _counter("wsss_ray_stage_seconds_total", "part")
        name = "wsss_ray_queue_wait_seconds"
        self._wait = metrics.Histogram(name, NAMES[name], boundaries=_WAIT_BOUNDS, tag_keys=("stage",))
        name = "wsss_ray_device_memory_bytes"
        self._memory = metrics.Gauge(name, NAMES[name], tag_keys=("stage",))

    def arrived(self, read_at: float | None) -> None:
        """Record that a unit, read at a time (seconds since 1970, on any node), reached its actor."""
        if read_at is not None:
            self._wait.observe(max(0.0, time.time() - read_at), tags=self._stage)

    def worked(self, seconds: Mapping[str, float]) -> None:
        """Record the seconds of a unit, by part of the work."""
        for part, value in seconds.items():
            if value > 0:  # a counter refuses 0
                self._seconds.inc(value, tags={**self._stage, "part": part})
        if self._device_memory is not None:
            self._memory.set(self._device_memory(), tags=self._stage)

    def committed(self, rows: pa.Table, counts: Mapping[str, Any]) -> None:
        """Record a committed unit: its rows (with an `error` where they failed) and the sink's counts."""
        self._units.inc(tags=self._stage)
        for status, images in (counts.get("statuses") or {"done": rows.num_rows}).items():
            if images:
                self._images.inc(images, tags={**self._stage, "status": status})
        if counts.get("boxes"):
            self._boxes.inc(counts["boxes"], tags=self._stage)
        failed = [error.partition(":")[0] for error in rows["error"].to_pylist() if error is not None]
        for step, images in Counter(failed).items():
            self._failures.inc(images, tags={**self._stage, "step": step})


def _counter(name: str, *keys: str) -> metrics.Counter:
    return metrics.Counter(name, NAMES[name], tag_keys=("stage", *keys))
