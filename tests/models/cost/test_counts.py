"""Budgets of what the networks do at full size on a GPU, counted on fake tensors; and the counter itself."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from wsss_ray.models.cost import parts
from wsss_ray.models.cost.counter import Count, counting
from wsss_ray.models.cost.estimate import seconds
from wsss_ray.models.cost.fake import fake_cuda
from wsss_ray.models.cost.gpus import GPUS, find_gpu

A100 = next(gpu for gpu in GPUS if gpu.name == "A100")


@pytest.fixture(scope="module")
def encoder() -> Count:
    return parts.count_encoder("vit_h", batch=16, tier="bfloat16")


@pytest.fixture(scope="module")
def detector() -> Count:
    return parts.count_detector(batch=8, tier="bfloat16")


def test_the_encoders_budget(encoder: Count) -> None:
    assert encoder.bytes / 16e9 < 11.6
    assert encoder.launches < 400
    assert encoder.waits == 0
    assert encoder.weight_bytes_cast == 0
    assert 5600e9 < encoder.flops / 16 < 5850e9


def test_the_encoders_budget_by_stock_operators() -> None:
    count = parts.count_encoder("vit_h", batch=16, tier="bfloat16", triton=False)
    assert count.bytes / 16e9 < 20.5
    assert count.weight_bytes_cast == 0
    assert "copy of an attention mask" not in count.operators


def test_the_detectors_budget(detector: Count) -> None:
    assert detector.bytes / 8e9 < 10.5
    assert detector.launches < 1500
    assert detector.waits <= 2
    assert detector.weight_bytes_cast == 0
    assert "copy of an attention mask" not in {name for name, work in detector.operators.items() if work.launches > 20}
    assert 480e9 < detector.flops / 8 < 520e9


def test_stock_sampling_launches_no_more_for_more_images() -> None:
    """What a T4 runs, and every GPU where a kernel is not used."""
    few, many = (parts.count_detector(batch=batch, tier="bfloat16", triton=False).launches for batch in (2, 8))
    assert many < 2300
    assert abs(many - few) < 30


def test_launches_of_the_detector_do_not_grow_with_the_batch(detector: Count) -> None:
    assert abs(parts.count_detector(batch=2, tier="bfloat16").launches - detector.launches) < 30


def test_the_decoders_budget() -> None:
    count = parts.count_decoder(images=16, boxes=128)
    assert count.bytes / 16e9 < 1.6
    assert count.launches < 180


def test_layers_of_the_packages_cost_more(encoder: Count) -> None:
    stock = parts.count_encoder("vit_h", batch=2, tier="bfloat16", kernels="stock")
    assert stock.bytes / 2 > 3 * encoder.bytes / 16
    assert stock.launches > 1.5 * encoder.launches
    assert stock.weight_bytes_cast > 2.4e9


def test_operators_are_counted_by_hand() -> None:
    """A cast, a product and an attention with a mask whose rows are not aligned."""
    with fake_cuda(), torch.no_grad():
        weight = torch.nn.Parameter(torch.empty(32, 64, device="cuda"))
        x = torch.empty(16, 64, dtype=torch.float16, device="cuda")
        query = torch.empty(1, 2, 9, 8, dtype=torch.float16, device="cuda")
        mask = torch.empty(1, 2, 9, 9, dtype=torch.float16, device="cuda")
        with counting(iter([weight])) as count:
            _ = functional.linear(x, weight.to(torch.float16))
            _ = functional.scaled_dot_product_attention(query, query, query, attn_mask=mask)
            _ = x.view(8, 128).expand(3, 8, 128)
    works = {name: (work.launches, work.flops, work.bytes) for name, work in count.operators.items()}
    assert works == {
        "_to_copy": (1, 0, 32 * 64 * (4 + 2)),
        "mm float16": (1, 2 * 16 * 64 * 32, 2 * (16 * 64 + 64 * 32 + 16 * 32)),
        "copy of an attention mask": (1, 0, 2 * 2 * 162),
        "attention float16": (1, 2 * 2 * 9 * 9 * 16, 2 * (4 * 144 + 162)),
    }
    assert count.weight_bytes_cast == 32 * 64 * 4


def test_copies_between_host_and_device_are_counted() -> None:
    with fake_cuda(), torch.no_grad():
        host, there = torch.empty(3), torch.empty(3, device="cuda")
        with counting() as count:
            _ = host.to("cuda") + there
            _ = there.to("cpu")
            _ = there.to(torch.float16)
    assert count.waits == 2


def test_an_operator_takes_the_slower_of_arithmetic_and_traffic() -> None:
    count = Count()
    count.add("mm float16", flops=312e12 * 0.65, nbytes=1.0)
    assert seconds(count, A100) == pytest.approx(1)
    count.add("add", flops=0, nbytes=1555e9 * 0.85)
    assert seconds(count, A100) == pytest.approx(2)
    count.add("mm float32", flops=19.5e12 * 0.65, nbytes=1.0)
    assert seconds(count, A100) == pytest.approx(3)
    assert seconds(count, A100, tf32=True) == pytest.approx(2 + 19.5 / 156)
    short = Count()
    for _ in range(100):
        short.add("add", flops=0, nbytes=1.0)
    assert seconds(short, A100) == pytest.approx(100 * 7e-6), "the host launches no faster"


@pytest.mark.parametrize(
    ("name", "gpu"),
    [("NVIDIA A100-SXM4-40GB", "A100"), ("Tesla T4", "T4"), ("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA L40S", None)],
)
def test_gpus_are_known_by_cudas_names(name: str, gpu: str | None) -> None:
    found = find_gpu(name)
    assert (None if found is None else found.name) == gpu
