"""What the hardware allows: seconds an image and GPU from arithmetic and memory traffic, and so hours and dollars."""

from __future__ import annotations

from dataclasses import dataclass

from wsss_ray.config.models import Precision

ENCODER_GFLOP = {"vit_b": 972.0, "vit_l": 2986.0, "vit_h": 5961.0}
"""SAM's image encoder, one image of 1024 x 1024, multiplications and additions counted apart."""
ENCODER_GB = {"vit_b": 6.0, "vit_l": 15.0, "vit_h": 24.0}
"""Memory traffic of the same in 16 bits, attention fused, its position bias made in pieces; estimated from shapes."""
DETECTOR_GFLOP = 500.0
"""Grounding DINO Swin-T at 800 x 1066 with a short prompt, fusion folded (transformers' own: 666)."""
BOX_GFLOP = 1.5
"""SAM's decoder for a box, projections folded (the package's own: 3.62)."""
BOXES = 8
"""Boxes an image: COCO's mean is seven objects."""
PUBLISHED_SHARE = 0.44
"""Share of the card's arithmetic peak that the best published encoder reaches: segment-anything-fast, ViT-H in bfloat16
on an A100, 22.9 images/s. Assumed for the other cards and networks."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """A GPU by its data sheet, dense."""

    name: str
    """Part of what CUDA calls it."""
    half_tflops: float
    """Peak in float16, and in bfloat16 where it has that."""
    float32_tflops: float
    """Peak in float32, without TF32."""
    tf32_tflops: float | None
    """Peak in TF32; None where the card has neither that nor bfloat16."""
    gigabytes_per_second: float
    """Memory bandwidth."""
    dollars_per_hour: float
    """Assumed, of the order of on-demand prices in public clouds; yours will differ."""


CARDS = (
    Card(
        name="T4", half_tflops=65, float32_tflops=8.1, tf32_tflops=None, gigabytes_per_second=320, dollars_per_hour=0.55
    ),
    Card(
        name="L4", half_tflops=121, float32_tflops=30, tf32_tflops=60, gigabytes_per_second=300, dollars_per_hour=0.80
    ),
    Card(
        name="A100",
        half_tflops=312,
        float32_tflops=19.5,
        tf32_tflops=156,
        gigabytes_per_second=1555,
        dollars_per_hour=3.5,
    ),
    Card(
        name="H100",
        half_tflops=989,
        float32_tflops=67,
        tf32_tflops=494,
        gigabytes_per_second=3350,
        dollars_per_hour=6.0,
    ),
)


def card_of(device_name: str) -> Card | None:
    """The card that CUDA names so, or None where it is not among CARDS."""
    return next((card for card in CARDS if card.name in device_name.replace("-", " ").split()), None)


def tflops(card: Card, precision: Precision) -> float:
    """Peak in a precision, where auto is what the job makes of it: bfloat16 if the card has it, else float32."""
    if precision == "float16" or (precision in ("auto", "bfloat16") and card.tf32_tflops is not None):
        return card.half_tflops
    return (precision == "tf32" and card.tf32_tflops) or card.float32_tflops


def seconds_per_image(
    card: Card, model: str, *, detector: Precision = "auto", segmenter: Precision = "auto", share: float = 1.0
) -> float:
    """Seconds a GPU needs at least for an image: the slower of arithmetic and memory in the encoder, then the rest.

    `share` of the arithmetic peak is reached; 1 is the physical limit.
    """
    half = tflops(card, segmenter) == card.half_tflops
    peak = tflops(card, segmenter) * 1000 * share
    traffic = ENCODER_GB[model] * (1 if half else 2) / card.gigabytes_per_second
    segmenting = max(ENCODER_GFLOP[model] / peak, traffic) + BOXES * BOX_GFLOP / peak
    return segmenting + DETECTOR_GFLOP / (tflops(card, detector) * 1000 * share)


def table(images: int, model: str = "vit_h") -> str:
    """Markdown: images/s and GPU at the limit and at the published share, and what a data set takes.

    In the precisions of the presets: 16 bits, but for the detector on a card without bfloat16, which runs in float32.
    """
    lines = [
        "| GPU | images/s at peak | at the published share | hours on 1 / 8 / 64 GPUs | dollars |",
        "|---|---|---|---|---|",
    ]
    for card in CARDS:
        limit = 1 / seconds_per_image(card, model, segmenter="float16")
        usual = 1 / seconds_per_image(card, model, segmenter="float16", share=PUBLISHED_SHARE)
        hours = images / usual / 3600
        parts = " / ".join(f"{hours / gpus:.2g}" for gpus in (1, 8, 64))
        lines.append(f"| {card.name} | {limit:.0f} | {usual:.1f} | {parts} | {hours * card.dollars_per_hour:.0f} |")
    return "\n".join(lines)
