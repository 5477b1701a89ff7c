"""The meaning of `auto` for device and precision. Needs no torch, so that the driver of a job can use it too."""

from __future__ import annotations

from collections.abc import Callable


def resolve(
    device: str, precision: str, *, has_gpus: bool, has_bfloat16: Callable[[], bool] = lambda: True
) -> tuple[str, str]:
    """Return the device (cpu, cuda) and the precision for settings that may be `auto`.

    Args:
        device: auto, cpu or cuda. auto is CUDA where there are GPUs.
        precision: auto or a precision. auto is bfloat16 on CUDA, else float32.
        has_gpus: whether the process, or for a driver its cluster, has GPUs.
        has_bfloat16: whether the GPU has native bfloat16; auto is float32 where it does not. A driver does not know and
            assumes that it has.
    """
    resolved = device if device != "auto" else "cuda" if has_gpus else "cpu"
    if precision == "auto":
        precision = "bfloat16" if resolved == "cuda" and has_bfloat16() else "float32"
    return resolved, precision
