"""A fast kernel is used only where it runs, agrees and is not slower; otherwise the log says why not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from wsss_ray.models.fast import self_check
from wsss_ray.models.fast.self_check import choose


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
