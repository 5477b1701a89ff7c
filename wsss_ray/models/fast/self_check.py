"""Compare a kernel of this package with stock operators on the actor's own GPU, before the first image.

The kernels were written without the GPU that they meet. So each runs once on random input of the real shapes in the
run's precision. Where it raises, differs or is slower, the stock operators are used, and the log says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

TOLERANCE = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""Largest difference from the stock operators, as a share of their largest value."""
LEAST_CAPABILITY = (8, 0)
"""Of the GPU. On older ones Triton's compiler can end the process instead of raising."""
RUNS = 5
"""Runs of which the mean time counts, after as many to warm up."""

KernelT = TypeVar("KernelT", bound=Callable[..., Tensor])


def choose(
    name: str,
    fast: KernelT,
    stock: KernelT,
    cases: Sequence[tuple[Any, ...]],
    *,
    timer: Callable[[Callable[[], object]], float] | None = None,
) -> KernelT:
    """Return `fast` if it passes on every case, else `stock`.

    Args:
        name: for the log.
        fast: the kernel of this package.
        stock: the same by stock operators.
        cases: arguments of calls; the first is a tensor of the run's dtype.
        timer: returns the milliseconds of a call; by the GPU's own events by default.
    """
    timer = timer or milliseconds
    taken, allowed = 0.0, 0.0
    if (capability := _capability(cases[0][0])) < LEAST_CAPABILITY:
        logger.info("%s: Triton has no code for this GPU (%d.%d); stock operators are used", name, *capability)
        return stock
    try:
        for case in cases:
            found, expected = fast(*case).float(), stock(*case).float()
            difference = float((found - expected).abs().max() / expected.abs().max())
            tolerance = TOLERANCE[case[0].dtype]
            if not difference <= tolerance:  # also where it is NaN
                logger.warning(
                    "%s: the fast kernel differs by %.2g of the largest value (allowed: %.2g); stock ones are used",
                    name, difference, tolerance,
                )  # fmt: skip
                return stock
            taken += timer(lambda case=case: fast(*case))  # type: ignore[misc]
            allowed += timer(lambda case=case: stock(*case))  # type: ignore[misc]
    except Exception as error:  # noqa: BLE001 - whatever a compiler or driver raises, the stock operators remain
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        logger.warning("%s: the fast kernel does not run here (%s); stock operators are used", name, reason)
        return stock
    if taken > allowed:
        logger.warning(
            "%s: the fast kernel takes %.3g ms, stock operators %.3g; stock ones are used", name, taken, allowed
        )
        return stock
    logger.info("%s: the fast kernel is used: %.3g ms, stock operators %.3g", name, taken, allowed)
    return fast


def _capability(tensor: Tensor) -> tuple[int, int]:
    on_gpu = tensor.device.type == "cuda"
    return torch.cuda.get_device_capability(tensor.device) if on_gpu else LEAST_CAPABILITY


def milliseconds(call: Callable[[], object]) -> float:
    """Return the mean time of a call on the current GPU, by its own events."""
    for _ in range(RUNS):
        call()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(RUNS):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / RUNS
