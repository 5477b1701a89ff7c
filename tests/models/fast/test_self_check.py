"""A fast kernel is used only where it runs, agrees and is not slower; otherwise the log says why not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from wsss_ray.models.fast import self_check
from wsss_ray.models.fast.self_check import agrees, choose


def stock(x: Tensor) -> Tensor:
    return x * 2


def fast(x: Tensor) -> Tensor:
    return x + x


def wrong(x: Tensor) -> Tensor:
    return x * 2.001


def not_a_number(x: Tensor) -> Tensor:
    return x / 0 * 0


def broken(x: Tensor) -> Tensor:
    raise RuntimeError("PTX was compiled\nfor another card")


def taking(seconds: dict[str, float]) -> Callable[[Callable[[], object]], float]:
    """Return a timer: the first call of each case is the fast kernel's."""
    turns: list[str] = []

    def timer(call: Callable[[], object]) -> float:
        call()
        turns.append("stock" if len(turns) % 2 else "fast")
        return seconds[turns[-1]]

    return timer


QUICK = {"fast": 1.0, "stock": 2.0}


@pytest.mark.parametrize(
    ("kernel", "seconds", "chosen", "told"),
    [
        (fast, QUICK, fast, "is used: 2 ms, stock operators 4"),
        (wrong, QUICK, stock, "differs by 0.0005 of the largest value (allowed: 0.0001)"),
        (not_a_number, QUICK, stock, "differs by nan"),
        (broken, QUICK, stock, "does not run here (RuntimeError: PTX was compiled for another card)"),
        (fast, {"fast": 2.0, "stock": 1.0}, stock, "takes 4 ms, stock operators 2"),
    ],
)
def test_the_choice(
    kernel: Callable[[Tensor], Tensor],
    seconds: dict[str, float],
    chosen: Callable[[Tensor], Tensor],
    told: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    cases = [(torch.ones(3),), (torch.arange(1.0, 4.0),)]
    assert choose("a kernel", kernel, stock, cases, timer=taking(seconds)) is chosen
    assert f"a kernel: the fast kernel {told}" in caplog.text.replace("kernel: the fast kernel the fast", "the fast")


def test_a_gpu_that_triton_does_not_know_runs_no_kernel(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its compiler would end the process."""
    caplog.set_level("INFO")
    monkeypatch.setattr(self_check, "_capability", lambda _: (7, 5))
    assert choose("a kernel", broken, stock, [(torch.ones(3),)], timer=taking(QUICK)) is stock
    assert "no code for this GPU (7.5)" in caplog.text
    assert "RuntimeError" not in caplog.text


def test_sixteen_bits_may_differ_more() -> None:
    cases = [(torch.ones(3, dtype=torch.bfloat16),)]
    assert choose("a kernel", wrong, stock, cases, timer=taking(QUICK)) is wrong


OUTPUTS = [torch.linspace(-1, 1, 50), torch.tensor([float("inf"), 2.0])]


@pytest.mark.parametrize(
    ("factor", "expected"), [(1.0, True), (1.05, True), (1.2, False), (float("nan"), False)], ids=str
)
def test_a_network_that_differs_in_the_mean_is_refused(
    factor: float, expected: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert agrees("net", lambda: [OUTPUTS[0] * factor, OUTPUTS[1]], OUTPUTS) is expected
    assert ("of the mean value (allowed: 0.1); stock ones are used" in caplog.text) is not expected


def test_an_overflow_of_float16_is_not_compared() -> None:
    """It has a check of its own, for every batch."""
    found = [OUTPUTS[0].clone(), OUTPUTS[1]]
    found[0][3] = float("inf")
    assert not agrees("net", lambda: found, OUTPUTS)
    assert agrees("net", lambda: found, OUTPUTS, may_overflow=True)


def test_a_network_that_raises_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    def run() -> list[Tensor]:
        raise RuntimeError("no such operator")

    assert not agrees("net", run, OUTPUTS)
    assert "RuntimeError: no such operator" in caplog.text
