"""Observe stages: traces of their work, the device memory that they hold, and GPUs that fail."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import pyarrow as pa

from wsss_ray.engine.meter import Meter
from wsss_ray.engine.stage import Stage, StageSpec, WorkerLost
from wsss_ray.labels.gpus import claim_gpu
from wsss_ray.storage.storage import Storage


def observed(spec: StageSpec, output: Storage | None, *, profile: bool, mixed_gpus: bool) -> StageSpec:
    """Return the stage with its GPU and the memory that it holds there reported. It ends when the GPU has failed.

    Args:
        spec: the stage.
        output: run directory, which may belong to one kind of GPU; None for a dry run, which writes nothing.
        profile: write traces of two units.
        mixed_gpus: let GPUs of other kinds take part.
    """
    make = spec.make
    if output is not None:
        make = functools.partial(_make_claimed, make, output, mixed_gpus)
        if profile:
            make = functools.partial(_make_profiled, make, spec.name, output)
    make = functools.partial(_make_guarded, make)
    return dataclasses.replace(spec, make=make, device_memory=held_memory, gpu=gpu_in_use)


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


def gpu_in_use() -> str | None:
    """Return the name of the GPU that this process computes on; None on the CPU."""
    from wsss_ray.models.cuda import gpu_name  # noqa: PLC0415 - torch, as above

    return gpu_name()


def _make_claimed(make: Callable[[], Stage], output: Storage, mixed_gpus: bool) -> Stage:
    """Create a stage, and check that its GPU is of the run's kind, before the first image."""
    stage = make()
    claim_gpu(output, mixed=mixed_gpus)
    return stage


def _make_guarded(make: Callable[[], Stage]) -> Stage:
    return GuardedStage(make())


def _make_profiled(make: Callable[[], Stage], name: str, output: Storage) -> Stage:
    from wsss_ray.labels.profiling import ProfiledStage  # noqa: PLC0415 - as above

    return ProfiledStage(make(), name, output)
