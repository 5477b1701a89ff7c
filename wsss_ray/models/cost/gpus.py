"""GPUs by their data sheets, and the shares of them that the estimates assume. Nothing of it has been measured."""

from __future__ import annotations

from dataclasses import dataclass

from wsss_ray.config.models import Precision


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """Figures of a GPU's data sheet, without sparsity, and assumed shares of them."""

    name: str
    """A word of the name that CUDA reports."""
    half_tflops: float
    """Peak in float16, and in bfloat16 where the GPU has it."""
    float32_tflops: float
    """Peak in float32, without TF32."""
    tf32_tflops: float | None
    """Peak in TF32; None where the GPU has neither TF32 nor bfloat16."""
    gigabytes_per_second: float
    """Memory bandwidth."""
    matmul_share: float
    """Assumed share of the peak that matrix products reach."""
    attention_share: float
    """Assumed share of the peak that fused attention reaches."""
    bandwidth_share: float
    """Assumed share of the bandwidth that other operators reach."""
    has_triton: bool = True
    """Whether Triton compiles for it, so that this package's kernels can run."""
    dollars_per_hour: float
    """Assumed price, similar to on-demand prices of public clouds."""


GPUS = (
    Gpu(
        name="T4", has_triton=False, half_tflops=65, float32_tflops=8.1, tf32_tflops=None, gigabytes_per_second=320,
        matmul_share=0.5, attention_share=0.38, bandwidth_share=0.8, dollars_per_hour=0.55,
    ),
    Gpu(
        name="L4", half_tflops=121, float32_tflops=30, tf32_tflops=60, gigabytes_per_second=300,
        matmul_share=0.6, attention_share=0.32, bandwidth_share=0.85, dollars_per_hour=0.80,
    ),
    Gpu(
        name="A100", half_tflops=312, float32_tflops=19.5, tf32_tflops=156, gigabytes_per_second=1555,
        matmul_share=0.65, attention_share=0.32, bandwidth_share=0.85, dollars_per_hour=3.5,
    ),
    Gpu(
        name="H100", half_tflops=989, float32_tflops=67, tf32_tflops=494, gigabytes_per_second=3350,
        matmul_share=0.6, attention_share=0.25, bandwidth_share=0.85, dollars_per_hour=6.0,
    ),
    Gpu(
        name="H200", half_tflops=989, float32_tflops=67, tf32_tflops=494, gigabytes_per_second=4800,
        matmul_share=0.6, attention_share=0.25, bandwidth_share=0.85, dollars_per_hour=7.0,
    ),
)  # fmt: skip
LAUNCH_SECONDS = 7e-6
"""Assumed host time of a launch from Python. A forward pass takes no less than its launches."""


def find_gpu(device_name: str) -> Gpu | None:
    """Return the GPU of a name that CUDA reports, or None where it is not in GPUS."""
    return next((gpu for gpu in GPUS if gpu.name in device_name.replace("-", " ").split()), None)


def best_precision(gpu: Gpu, precision: Precision) -> Precision:
    """Return the precision, or for `auto` bfloat16 where the GPU has it, else float32."""
    return precision if precision != "auto" else "float32" if gpu.tf32_tflops is None else "bfloat16"
