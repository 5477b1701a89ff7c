"""The meaning of `auto` for device and precision. Needs no torch, so that the driver of a job can use it too."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

SettingsT = TypeVar("SettingsT")


def resolve(device: str, precision: str, *, has_gpus: bool, has_bfloat16: bool = True) -> tuple[str, str]:
    """Return the device (cpu, cuda) and the precision for settings that may be `auto`.

    Args:
        device: auto, cpu or cuda. auto is CUDA where there are GPUs.
        precision: auto or a precision. auto is bfloat16 on CUDA, else float32.
        has_gpus: whether the process, or for a driver the actors, have GPUs.
        has_bfloat16: whether the GPUs have native bfloat16; auto is float32 where they do not.
    """
    resolved = device if device != "auto" else "cuda" if has_gpus else "cpu"
    if precision == "auto":
        precision = "bfloat16" if resolved == "cuda" and has_bfloat16 else "float32"
    return resolved, precision


def decide(settings: SettingsT, *, has_gpus: bool, has_bfloat16: bool = True) -> SettingsT:
    """Return settings (a dataclass with `device` and `precision`) without `auto`, as a driver sends them to its actors.

    An actor then has what the run's identity says, or ends: it does not choose for itself.
    """
    given: Any = settings
    device, precision = resolve(given.device, given.precision, has_gpus=has_gpus, has_bfloat16=has_bfloat16)
    decided: SettingsT = dataclasses.replace(given, device=device, precision=precision)
    return decided
