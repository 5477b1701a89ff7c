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
WHOLE_TOLERANCE = 0.1
"""Mean difference of a whole network in 16 bits from its stock layers, as a share of their mean value: a wrong layer
changes it by more, rounding by a few hundredths."""
SLOWER = 1.1
"""Time of a fast kernel, as a multiple of the stock operators' time, from which on these are used: equal GPUs of a run
then choose alike in spite of noise."""
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
    if taken > SLOWER * allowed:
        logger.warning(
            "%s: the fast kernel takes %.3g ms, stock operators %.3g; stock ones are used", name, taken, allowed
        )
        return stock
    logger.info("%s: the fast kernel is used: %.3g ms, stock operators %.3g", name, taken, allowed)
    return fast


def agrees(
    name: str, run: Callable[[], Sequence[Tensor]], expected: Sequence[Tensor], *, may_overflow: bool = False
) -> bool:
    """Return whether a network with fast layers gives what its stock layers gave; otherwise the log says why not.

    Args:
        name: for the log.
        run: the network with fast layers.
        expected: outputs of the stock layers; their values that are not finite are not compared.
        may_overflow: leave out values of the fast layers that are not finite, as float16 may give.
    """
    try:
        for found, stock in zip(run(), expected, strict=True):
            valid = stock.isfinite() & (found.isfinite() if may_overflow else torch.ones_like(found, dtype=torch.bool))
            difference = float((found - stock)[valid].abs().mean() / stock[valid].abs().mean())
            if valid.any() and not difference <= WHOLE_TOLERANCE:  # also where it is NaN
                logger.warning(
                    "%s: fast layers differ by %.2g of the mean value (allowed: %.2g); stock ones are used",
                    name, difference, WHOLE_TOLERANCE,
                )  # fmt: skip
                return False
    except Exception as error:  # noqa: BLE001 - as in `choose`
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        logger.warning("%s: fast layers do not run here (%s); stock ones are used", name, reason)
        return False
    return True


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
