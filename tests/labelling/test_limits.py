"""Limits of the hardware, computed by hand for one GPU."""

import dataclasses

import pytest

from wsss_ray.config.models import Precision
from wsss_ray.labelling import limits


@pytest.mark.parametrize(
    ("name", "gpu"),
    [("NVIDIA A100-SXM4-40GB", "A100"), ("Tesla T4", "T4"), ("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA L40S", None)],
)
def test_gpus_are_known_by_cudas_names(name: str, gpu: str | None) -> None:
    found = limits.find_gpu(name)
    assert (None if found is None else found.name) == gpu


GPU = limits.Gpu(
    name="X", half_tflops=100, float32_tflops=10, tf32_tflops=50, gigabytes_per_second=1000, dollars_per_hour=1
)
OLD = dataclasses.replace(GPU, tf32_tflops=None)
BOXES = 8 * 1.5


def test_seconds_are_arithmetic_or_memory() -> None:
    rest = 500 + BOXES
    assert limits.seconds_per_image(GPU, "vit_h") == pytest.approx((5961 + rest) / 100_000)
    assert limits.seconds_per_image(GPU, "vit_h", share=0.5) == pytest.approx((5961 + rest) / 50_000)
    slow = dataclasses.replace(GPU, gigabytes_per_second=100)
    assert limits.seconds_per_image(slow, "vit_h") == pytest.approx(24 / 100 + rest / 100_000)


def test_each_network_has_its_precision() -> None:
    """As the preset for a T4: SAM in float16, the detector in float32."""
    seconds = limits.seconds_per_image(OLD, "vit_h", segmenter="float16", detector="float32")
    assert seconds == pytest.approx((5961 + BOXES) / 100_000 + 500 / 10_000)
    strict = limits.seconds_per_image(GPU, "vit_h", segmenter="float32", detector="tf32")
    assert strict == pytest.approx((5961 + BOXES) / 10_000 + 500 / 50_000)


@pytest.mark.parametrize("precision", ["auto", "bfloat16", "tf32", "float32"])
def test_a_card_without_bfloat16_has_no_fast_precision_but_float16(precision: Precision) -> None:
    assert limits.tflops(OLD, precision) == 10
    assert limits.tflops(OLD, "float16") == limits.tflops(GPU, "auto") == 100


def test_the_table_has_a_line_for_each_card() -> None:
    lines = limits.table(82_081).splitlines()
    assert len(lines) == 2 + len(limits.GPUS)
    assert lines[4].startswith("| A100 | ")
