"""GPUs by their data sheets, and the shares of them that the estimates assume."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class GpuCard:
    """A GPU, without sparsity."""

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
    dollars_per_hour: float
    """Assumed price, similar to on-demand prices of public clouds."""


CARDS = (
    GpuCard(
        name="T4", half_tflops=65, float32_tflops=8.1, tf32_tflops=None, gigabytes_per_second=320,
        matmul_share=0.5, attention_share=0.38, bandwidth_share=0.8, dollars_per_hour=0.55,
    ),
    GpuCard(
        name="L4", half_tflops=121, float32_tflops=30, tf32_tflops=60, gigabytes_per_second=300,
        matmul_share=0.6, attention_share=0.32, bandwidth_share=0.85, dollars_per_hour=0.80,
    ),
    GpuCard(
        name="A100", half_tflops=312, float32_tflops=19.5, tf32_tflops=156, gigabytes_per_second=1555,
        matmul_share=0.65, attention_share=0.32, bandwidth_share=0.85, dollars_per_hour=3.5,
    ),
    GpuCard(
        name="H100", half_tflops=989, float32_tflops=67, tf32_tflops=494, gigabytes_per_second=3350,
        matmul_share=0.6, attention_share=0.25, bandwidth_share=0.85, dollars_per_hour=6.0,
    ),
    GpuCard(
        name="H200", half_tflops=989, float32_tflops=67, tf32_tflops=494, gigabytes_per_second=4800,
        matmul_share=0.6, attention_share=0.25, bandwidth_share=0.85, dollars_per_hour=7.0,
    ),
)  # fmt: skip
LAUNCH_SECONDS = 7e-6
"""Assumed host time of a launch from Python. A forward pass takes no less than its launches."""


def card_of(device_name: str) -> GpuCard | None:
    """Return the GPU of a name that CUDA reports, or None where it is not in CARDS."""
    return next((card for card in CARDS if card.name in device_name.replace("-", " ").split()), None)
