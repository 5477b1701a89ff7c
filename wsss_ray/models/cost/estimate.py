"""The time of counted work on a GPU: each operator the slower of its arithmetic and its memory traffic."""

from __future__ import annotations

from wsss_ray.models.cost.counter import Count, Work
from wsss_ray.models.cost.gpus import LAUNCH_SECONDS, Gpu


def seconds(count: Count, gpu: Gpu, *, tf32: bool = False) -> float:
    """Return the seconds of the counted work, or those of its launches where the host is slower.

    Args:
        count: the work.
        gpu: the GPU.
        tf32: whether products in float32 use TF32.
    """
    on_device = sum(_seconds_of(name, work, gpu, tf32=tf32) for name, work in count.operators.items())
    return max(on_device, count.launches * LAUNCH_SECONDS)


def _seconds_of(name: str, work: Work, gpu: Gpu, *, tf32: bool) -> float:
    peak = gpu.half_tflops
    if name.endswith("float32"):
        peak = (tf32 and gpu.tf32_tflops) or gpu.float32_tflops
    share = gpu.attention_share if name.startswith("attention") else gpu.matmul_share
    arithmetic = work.flops / (peak * 1e12 * share)
    return max(arithmetic, work.bytes / (gpu.gigabytes_per_second * 1e9 * gpu.bandwidth_share))
