"""The checks of a node's GPUs: CUDA starts, each runs the job's precisions, and multiplies at a share of its peak."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from wsss_ray.doctor.results import CheckResult
from wsss_ray.models.cost.gpus import find_gpu
from wsss_ray.models.cuda import GpuError, check_gpu, driver_version, why_cuda_does_not_start

SIDE = 8192
"""Side of the measured matrices: large enough for the peak, 0.4 GB in 16 bits."""
LEAST_SHARE = 0.4
"""Share of the data sheet's peak below which a GPU is reported: healthy ones reach 0.5 to 0.8."""
_HELD = 0.9
"""Share of the memory that should be free before a job starts."""


def check_gpus(tiers: tuple[str, ...]) -> Iterator[CheckResult]:
    """Check all GPUs that this process sees, in the given precisions."""
    if not torch.cuda.is_available():
        yield CheckResult(check="GPU", found="CUDA does not start", state="error", advice=why_cuda_does_not_start())
        return
    yield CheckResult(check="driver", found=f"{driver_version() or 'unknown'}, PyTorch for CUDA {torch.version.cuda}")
    for index in range(torch.cuda.device_count()):
        with torch.cuda.device(index):
            yield from _check_gpu(tiers)


def _check_gpu(tiers: tuple[str, ...]) -> Iterator[CheckResult]:
    name = torch.cuda.get_device_name()
    free, total = torch.cuda.mem_get_info()
    found = f"{name}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free"
    if free < _HELD * total:
        advice = "another process holds the GPU's memory (nvidia-smi shows it)."
        yield CheckResult(check="GPU", found=found, state="warning", advice=advice)
    else:
        yield CheckResult(check="GPU", found=found)
    for tier in tiers:
        try:
            check_gpu(tier)
            reached = multiply(tier)
        except (GpuError, torch.OutOfMemoryError) as error:
            yield CheckResult(check=tier, found=f"{name} cannot run it", state="error", advice=str(error))
            continue
        yield rate(name, tier, reached)


def rate(name: str, tier: str, reached: float) -> CheckResult:
    """Return the result of a matrix product of `reached` TFLOP/s, against the data sheet of the GPU called `name`."""
    card = find_gpu(name)
    if card is None:
        return CheckResult(check=tier, found=f"{name}: {reached:.1f} TFLOP/s; its data sheet is not known here")
    peak = {"float32": card.float32_tflops, "tf32": card.tf32_tflops or card.float32_tflops}.get(tier, card.half_tflops)
    share = reached / peak
    found = f"{name}: about {round(share, 1):.0%} of {peak:g} TFLOP/s"
    if share >= LEAST_SHARE:
        return CheckResult(check=tier, found=found)
    advice = "it is slow: look for another process, a low power limit or heat (nvidia-smi -q -d PERFORMANCE)."
    return CheckResult(check=tier, found=found, state="warning", advice=advice)


def multiply(tier: str, *, side: int = SIDE, device: str = "cuda") -> float:
    """Return the TFLOP/s of a product of square matrices in a precision, the best of five."""
    dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(tier, torch.float32)
    first, second = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tier == "tf32" else "highest")
    try:
        best = float("inf")
        for _ in range(6):  # the first one loads the library
            started = time.perf_counter()
            torch.matmul(first, second)
            if device == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - started)
    finally:
        torch.set_float32_matmul_precision(before)
    return 2 * side**3 / best / 1e12
