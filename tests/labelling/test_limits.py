"""What the hardware allows: hand-computed for one card."""

import pytest

from wsss_ray.labelling import limits


@pytest.mark.parametrize(
    ("name", "card"),
    [("NVIDIA A100-SXM4-40GB", "A100"), ("Tesla T4", "T4"), ("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA L40S", None)],
)
def test_cards_are_known_by_cudas_names(name: str, card: str | None) -> None:
    found = limits.card_of(name)
    assert (None if found is None else found.name) == card


def test_seconds_are_arithmetic_or_memory() -> None:
    card = limits.Card(name="X", half_tflops=100, float32_tflops=10, gigabytes_per_second=1000, dollars_per_hour=1)
    rest = 500 + 8 * 1.5
    assert limits.seconds_per_image(card, "vit_h", half=True) == pytest.approx((5961 + rest) / 100_000)
    assert limits.seconds_per_image(card, "vit_h", half=True, share=0.5) == pytest.approx((5961 + rest) / 50_000)
    slow = limits.Card(name="X", half_tflops=100, float32_tflops=10, gigabytes_per_second=100, dollars_per_hour=1)
    assert limits.seconds_per_image(slow, "vit_h", half=True) == pytest.approx(24 / 100 + rest / 100_000)


def test_the_table_has_a_line_for_each_card() -> None:
    lines = limits.table(82_081).splitlines()
    assert len(lines) == 2 + len(limits.CARDS)
    assert lines[4].startswith("| A100 | ")
