"""What `auto` means, for the identity of a run: the driver may have another machine than the actors."""

from __future__ import annotations


def resolve(device: str, precision: str, *, has_gpus: bool) -> tuple[str, str]:
    """Device and precision that `auto` will mean to the actors, as far as the driver can tell: for a run's identity."""
    resolved = device if device != "auto" else "cuda" if has_gpus else "cpu"
    if precision == "auto":
        precision = "bfloat16" if resolved == "cuda" else "float32"
    return resolved, precision
