"""What the pretended GPU counts and refuses: the tests on it are worth no more than this."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from pretended_cuda import DeviceError, OnGpu, PretendedGpu, pretended_cuda
from torch import Tensor, nn


def ones(*shape: int) -> Tensor:
    return torch.ones(*shape, device="cuda")


def wait() -> None:
    torch.cuda.synchronize()


@pytest.mark.parametrize(
    ("work", "syncs", "pageable"),
    [
        (lambda: ones(3) + 1, 0, 0),
        (lambda: ones(3) + torch.tensor(1.0), 0, 0),  # a number of the CPU
        (lambda: ones(3).sum().item(), 1, 0),
        (lambda: bool(ones(3).any()), 1, 0),
        (lambda: ones(3).tolist(), 1, 0),
        (lambda: ones(3).cpu(), 1, 0),
        (lambda: torch.empty(3).copy_(ones(3)), 1, 0),
        (lambda: ones(3).nonzero(), 1, 0),
        (lambda: ones(3)[ones(3) > 0], 1, 0),
        (lambda: ones(3).unique(), 1, 0),
        (wait, 1, 0),
        (lambda: torch.cuda.Event().synchronize(), 1, 0),
        (lambda: torch.ones(3).to("cuda"), 0, 1),
        (lambda: torch.ones(3).to("cuda", non_blocking=True), 0, 1),
        (lambda: torch.ones(3).pin_memory().to("cuda"), 0, 1),
        (lambda: torch.ones(3).pin_memory().to("cuda", non_blocking=True), 0, 0),
        (lambda: torch.empty(3, pin_memory=True).fill_(1).to("cuda", non_blocking=True), 0, 0),
        (lambda: ones(3).to("cpu", non_blocking=True), 0, 0),
        (lambda: torch.tensor([1, 2], device="cuda"), 0, 1),
        (lambda: ones(3)[[2, 1, 0]], 0, 1),
    ],
)
def test_waits_and_pageable_copies_are_counted(work: Callable[[], Any], syncs: int, pageable: int) -> None:
    with pretended_cuda() as gpu:
        work()
        assert (gpu.syncs.total(), gpu.pageable.total()) == (syncs, pageable)


@pytest.mark.parametrize(
    "work",
    [
        lambda: ones(3) + torch.ones(3),
        lambda: torch.cat([ones(3), torch.ones(3)]),
        lambda: torch.ones(3)[torch.tensor([1], device="cuda")],
        lambda: nn.Linear(3, 3)(ones(2, 3)),
        lambda: nn.functional.scaled_dot_product_attention(ones(1, 2, 3), torch.ones(1, 2, 3), ones(1, 2, 3)),
    ],
)
def test_tensors_of_two_devices_do_not_meet(work: Callable[[], Any]) -> None:
    with pretended_cuda(), pytest.raises(DeviceError, match="of the CPU beside those of the GPU"):
        work()


def test_the_values_of_the_gpu_are_not_at_hand_for_numpy() -> None:
    with pretended_cuda():
        with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
            ones(3).numpy()
        with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
            np.asarray(ones(3))


def test_a_module_moves_and_computes_under_cuda_s_autocast() -> None:
    layer = nn.Linear(3, 2)
    expected = layer(torch.ones(1, 3))
    with pretended_cuda():
        moved = layer.to("cuda")
        assert isinstance(moved.weight, nn.Parameter)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            found = moved(ones(1, 3))
        assert (found.dtype, found.device.type, type(found)) == (torch.bfloat16, "cuda", OnGpu)
        assert torch.allclose(found.cpu().float(), expected, atol=0.02)


def test_other_threads_use_the_same_gpu() -> None:
    with pretended_cuda() as gpu, ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: ones(3).sum().item()).result() == 3
        assert gpu.syncs.total() == 1


def test_afterwards_there_is_no_gpu_but_what_there_was_before() -> None:
    before = torch.cuda.is_available(), torch.cuda.device_count()
    with pretended_cuda() as gpu:
        assert isinstance(gpu, PretendedGpu)
        assert torch.cuda.is_available()
    assert (torch.cuda.is_available(), torch.cuda.device_count()) == before
    assert type(torch.ones(2) + 1) is Tensor
