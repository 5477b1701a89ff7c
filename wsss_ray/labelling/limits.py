"""Limits of the hardware: seconds per image and GPU from arithmetic and memory traffic; from these, hours and dollars.

The labelling job estimates the hours of a dry run by them, and `benchmarks/limits.py` prints a table for data sets.
"""

from __future__ import annotations

from dataclasses import dataclass

from wsss_ray.config.models import Precision

ENCODER_GFLOP = {"vit_b": 972.0, "vit_l": 2986.0, "vit_h": 5961.0}
"""Arithmetic of SAM's image encoder for an image of 1024 x 1024. A multiplication and an addition count as two."""
ENCODER_GB = {"vit_b": 6.0, "vit_l": 15.0, "vit_h": 24.0}
"""Memory traffic of the encoder in 16 bits with fused attention and the position bias in pieces; from shapes."""
DETECTOR_GFLOP = 500.0
"""Arithmetic of Grounding DINO Swin-T at 800 x 1066 with a short prompt and folded fusion (stock layers: 666)."""
BOX_GFLOP = 1.5
"""Arithmetic of SAM's decoder for one box with folded projections (stock layers: 3.62)."""
BOXES = 8
"""Boxes per image; the mean of COCO is seven objects."""
PUBLISHED_SHARE = 0.44
"""Share of the GPU's arithmetic peak of the fastest published encoder: segment-anything-fast, ViT-H in bfloat16 on an
A100, 22.9 images/s. The same share is assumed for other GPUs and networks."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """Figures of a GPU's data sheet, without sparsity."""

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
    dollars_per_hour: float
    """Assumed price, similar to on-demand prices of public clouds."""


GPUS = (
    Gpu(
        name="T4", half_tflops=65, float32_tflops=8.1, tf32_tflops=None, gigabytes_per_second=320, dollars_per_hour=0.55
    ),
    Gpu(name="L4", half_tflops=121, float32_tflops=30, tf32_tflops=60, gigabytes_per_second=300, dollars_per_hour=0.80),
    Gpu(
        name="A100",
        half_tflops=312,
        float32_tflops=19.5,
        tf32_tflops=156,
        gigabytes_per_second=1555,
        dollars_per_hour=3.5,
    ),
    Gpu(
        name="H100",
        half_tflops=989,
        float32_tflops=67,
        tf32_tflops=494,
        gigabytes_per_second=3350,
        dollars_per_hour=6.0,
    ),
)


def find_gpu(device_name: str) -> Gpu | None:
    """Return the GPU of a name that CUDA reports, or None where it is not in GPUS."""
    return next((gpu for gpu in GPUS if gpu.name in device_name.replace("-", " ").split()), None)


def tflops(gpu: Gpu, precision: Precision) -> float:
    """Return the peak in a precision. auto is bfloat16 where the GPU has it, else float32."""
    if precision == "float16" or (precision in ("auto", "bfloat16") and gpu.tf32_tflops is not None):
        return gpu.half_tflops
    return (precision == "tf32" and gpu.tf32_tflops) or gpu.float32_tflops


def seconds_per_image(
    gpu: Gpu, model: str, *, detector: Precision = "auto", segmenter: Precision = "auto", share: float = 1.0
) -> float:
    """Return the seconds that a GPU needs for an image at least.

    The encoder needs the larger of its arithmetic's and its memory traffic's time; decoder and detector are added.

    Args:
        gpu: the GPU.
        model: SAM's model, a key of ENCODER_GFLOP.
        detector: precision of the detector.
        segmenter: precision of the segmenter.
        share: share of the arithmetic peak that is used; 1 is the physical limit.
    """
    half = tflops(gpu, segmenter) == gpu.half_tflops
    peak = tflops(gpu, segmenter) * 1000 * share
    traffic = ENCODER_GB[model] * (1 if half else 2) / gpu.gigabytes_per_second
    segmenting = max(ENCODER_GFLOP[model] / peak, traffic) + BOXES * BOX_GFLOP / peak
    return segmenting + DETECTOR_GFLOP / (tflops(gpu, detector) * 1000 * share)


def table(images: int, model: str = "vit_h") -> str:
    """Return a Markdown table: for each GPU, images/s at the peak and at the published share, hours and dollars.

    The precisions are those of the presets: 16 bits, but float32 for the detector on a GPU without bfloat16.

    Args:
        images: number of images of the data set.
        model: SAM's model, a key of ENCODER_GFLOP.
    """
    lines = [
        "| GPU | images/s at peak | at the published share | hours on 1 / 8 / 64 GPUs | dollars |",
        "|---|---|---|---|---|",
    ]
    for gpu in GPUS:
        peak = 1 / seconds_per_image(gpu, model, segmenter="float16")
        rate = 1 / seconds_per_image(gpu, model, segmenter="float16", share=PUBLISHED_SHARE)
        hours = images / rate / 3600
        parts = " / ".join(f"{hours / gpus:.2g}" for gpus in (1, 8, 64))
        lines.append(f"| {gpu.name} | {peak:.0f} | {rate:.1f} | {parts} | {hours * gpu.dollars_per_hour:.0f} |")
    return "\n".join(lines)
