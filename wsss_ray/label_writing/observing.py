"""Looking at stages from outside: traces of their work, and the device memory that they hold."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

from wsss_ray.data.storage import Storage
from wsss_ray.engine.stage import Stage, StageSpec


def observed(spec: StageSpec, output: Storage | None) -> StageSpec:
    """The same stage, with its device memory in the metrics and, with an `output`, traces of two of its units."""
    make = spec.make if output is None else functools.partial(_make_profiled, spec.make, spec.name, output)
    return dataclasses.replace(spec, make=make, device_memory=held_memory)


def held_memory() -> int:
    """Most bytes of GPU memory that this process has held at once; 0 without a GPU."""
    import torch  # noqa: PLC0415 - seconds that the driver does not need

    return torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0


def _make_profiled(make: Callable[[], Stage], name: str, output: Storage) -> Stage:
    from wsss_ray.label_writing.profiling import ProfiledStage  # noqa: PLC0415 - as above

    return ProfiledStage(make(), name, output)
