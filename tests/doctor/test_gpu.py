"""Compare a matrix product with the data sheet; the product itself runs on the CPU here."""

from __future__ import annotations

import pytest
import torch

from wsss_ray.doctor.gpu import multiply, rate


@pytest.mark.parametrize(
    ("name", "tier", "reached", "state", "found"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 600.0, "ok", "about 60% of 989 TFLOP/s"),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 60.0, "warning", "about 20% of 312 TFLOP/s"),
        ("NVIDIA A100-SXM4-80GB", "tf32", 100.0, "ok", "about 60% of 156 TFLOP/s"),
        ("Tesla T4", "float32", 6.0, "ok", "about 70% of 8.1 TFLOP/s"),
        ("GeForce GTX 750", "float32", 1.0, "ok", "1.0 TFLOP/s; its data sheet is not known here"),
    ],
)
def test_a_product_is_compared_with_the_data_sheet(
    name: str, tier: str, reached: float, state: str, found: str
) -> None:
    result = rate(name, tier, reached)
    assert result.state == state
    assert result.found == f"{name}: {found}"


@pytest.mark.parametrize("tier", ["float32", "tf32", "bfloat16"])
def test_a_product_has_a_speed_and_leaves_the_precision_as_it_was(tier: str) -> None:
    before = torch.get_float32_matmul_precision()
    assert multiply(tier, side=64, device="cpu") > 0
    assert torch.get_float32_matmul_precision() == before
