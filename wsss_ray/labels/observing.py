"""Observe stages: traces of their work, the device memory that they hold, and GPUs that fail."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import pyarrow as pa

from wsss_ray.engine.meter import Meter
from wsss_ray.engine.stage import Stage, StageSpec, WorkerLost
from wsss_ray.storage.storage import Storage


def observed(spec: StageSpec, output: Storage | None) -> StageSpec:
    """Return the stage with its device memory in the metrics and, if `output` is given, traces of two of its units.

    It ends its process when the GPU has failed.
    """
    make = spec.make if output is None else functools.partial(_make_profiled, spec.make, spec.name, output)
    return dataclasses.replace(spec, make=functools.partial(_make_guarded, make), device_memory=held_memory)


class GuardedStage:
    """A stage that ends its process once CUDA has failed in it.

    Every later call would fail too, and quickly: one actor would turn the whole queue into failed images.
    """

    def __init__(self, inner: Stage) -> None:
        """Guard `inner`."""
        self._inner = inner
        self.output_schema = inner.output_schema

    def __call__(self, rows: pa.Table, meter: Meter) -> pa.Table:
        """Run the stage.

        Raises:
            WorkerLost: the GPU cannot be used any more.
        """
        try:
            return self._inner(rows, meter)
        except Exception as error:
            from wsss_ray.models.device import is_device_lost  # noqa: PLC0415 - torch, which the driver does not need

            if is_device_lost(error):
                raise WorkerLost(str(error)) from error
            raise


def held_memory() -> int:
    """Return the most bytes of GPU memory that this process has held at once; 0 without a GPU."""
    import torch  # noqa: PLC0415 - seconds that the driver does not need

    return torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0


def _make_guarded(make: Callable[[], Stage]) -> Stage:
    return GuardedStage(make())


def _make_profiled(make: Callable[[], Stage], name: str, output: Storage) -> Stage:
    from wsss_ray.labels.profiling import ProfiledStage  # noqa: PLC0415 - as above

    return ProfiledStage(make(), name, output)
