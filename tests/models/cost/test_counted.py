"""The figures of `benchmarks/roofline.py` that the package carries: as the code counts now, and what follows."""

from __future__ import annotations

import pytest

from wsss_ray.models.cost import parts
from wsss_ray.models.cost.counted import counted, seconds_per_image
from wsss_ray.models.cost.estimate import seconds
from wsss_ray.models.cost.gpus import GPUS, Gpu, best_precision

BY_NAME = {gpu.name: gpu for gpu in GPUS}


@pytest.mark.parametrize(
    ("part", "precision"),
    [("vit_b", "bfloat16"), ("swin-t", "bfloat16"), ("swin-t", "float32"), ("decoder", "float32")],
)
def test_figures_are_what_the_code_counts(part: str, precision: str) -> None:
    """`python benchmarks/roofline.py --write` renews them."""
    entry = counted()[part, precision]
    count = parts.count(part, precision, batch=entry.batch)  # type: ignore[arg-type]
    assert count.bytes / entry.batch / 1e9 == pytest.approx(entry.gigabytes, rel=0.02)
    assert count.flops / entry.batch / 1e9 == pytest.approx(entry.gigaflops, rel=0.02)
    assert count.waits + parts.READS.get(part, 0) == entry.waits
    assert count.launches == pytest.approx(entry.launches, rel=0.02)
    stock = parts.count(part, precision, batch=entry.batch, triton=False)  # type: ignore[arg-type]
    for gpu in GPUS:
        took = seconds(count if gpu.has_triton else stock, gpu, tf32=precision == "tf32") / entry.batch * 1e3
        assert took == pytest.approx(entry.milliseconds[gpu.name], rel=0.02, abs=0.01)


def test_every_part_has_its_precisions() -> None:
    expected = {(part, precision) for part in parts.PARTS for precision in parts.precisions_of(part)}
    assert set(counted()) == expected
    assert all(set(entry.milliseconds) == set(BY_NAME) for entry in counted().values())


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_seconds_are_the_sum_of_the_parts(gpu: Gpu) -> None:
    parts_of_t4_preset = [("vit_h", "float16"), ("decoder", "float32"), ("swin-t", "float32")]
    expected = sum(counted()[part].milliseconds[gpu.name] for part in parts_of_t4_preset) / 1000
    assert seconds_per_image(gpu, "vit_h", segmenter="float16", detector="float32") == pytest.approx(expected)


def test_auto_is_bfloat16_where_the_gpu_has_it() -> None:
    assert [best_precision(BY_NAME[name], "auto") for name in ("T4", "A100")] == ["float32", "bfloat16"]
    assert best_precision(BY_NAME["T4"], "float16") == "float16"
    assert seconds_per_image(BY_NAME["T4"], "vit_b") > 5 * seconds_per_image(BY_NAME["A100"], "vit_b")


def test_an_h100_and_an_a100_stay_within_their_estimates() -> None:
    """ViT-H, Swin-T and eight boxes in bfloat16."""
    assert seconds_per_image(BY_NAME["H100"], "vit_h") < 0.0175
    assert seconds_per_image(BY_NAME["A100"], "vit_h") < 0.045
