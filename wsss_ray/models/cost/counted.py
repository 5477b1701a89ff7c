"""Cost of the networks for an image, as `benchmarks/roofline.py` counted it, and estimates of their time.

Counting takes a minute and the networks' packages, so its figures are a file, which a test compares with the code.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib.resources import files

from wsss_ray.config.models import Precision
from wsss_ray.models.cost.gpus import Gpu, best_precision

FILE = "counted.json"


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A part of the work for one image, in one precision."""

    part: str
    """vit_h, vit_l, vit_b (SAM's encoder), decoder, swin-t, swin-b (Grounding DINO), student."""
    precision: str
    """float32, tf32, float16 or bfloat16."""
    batch: int
    """Images that ran together."""
    launches: int
    """Of the whole batch."""
    waits: int
    """Of the host for the GPU, in a batch: copies to it, and the reading of the results."""
    gigabytes: float
    """Read and written."""
    gigaflops: float
    """A multiplication and an addition are two."""
    milliseconds: dict[str, float]
    """By the GPU's name. Each operator takes the slower of arithmetic and memory traffic, at the GPU's shares."""


@functools.cache
def counted() -> dict[tuple[str, str], Counted]:
    """Return what was counted, by part and precision."""
    entries = json.loads((files("wsss_ray.models.cost") / FILE).read_text(encoding="utf-8"))
    return {(entry["part"], entry["precision"]): Counted(**entry) for entry in entries}


def seconds_per_image(
    gpu: Gpu, encoder: str, *, detector: Precision = "auto", segmenter: Precision = "auto", backbone: str = "swin-t"
) -> float:
    """Return the estimated seconds that a GPU computes for an image with eight boxes, by the counted operators.

    Args:
        gpu: the GPU.
        encoder: SAM's model.
        detector: precision of the detector.
        segmenter: precision of SAM's encoder; its decoder runs in float32.
        backbone: of the detector.
    """
    parts = [
        (encoder, best_precision(gpu, segmenter)), ("decoder", "float32"), (backbone, best_precision(gpu, detector)),
    ]  # fmt: skip
    return sum(counted()[part].milliseconds[gpu.name] for part in parts) / 1000
