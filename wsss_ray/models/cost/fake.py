"""Networks on a GPU that does not exist: tensors with shapes, dtypes and devices, but without values."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from wsss_ray.models.device import Compute, Tier

CUDA = torch.device("cuda")


@contextlib.contextmanager
def fake_cuda() -> Iterator[None]:
    """Let tensors be created and computed on `cuda` without a GPU or driver, by CUDA's rules of autocast.

    Only shapes are computed. Reading a value raises an error.
    """
    from torch.cuda.amp import common  # noqa: PLC0415 - the switch is not part of torch's interface

    def no_grad(mode: bool = True) -> Any:
        """Stand for inference mode, which hides the casts of constants and sends them to a real driver."""
        return torch.no_grad() if mode else contextlib.nullcontext()

    replaced: list[tuple[Any, str, Any]] = [
        (common, "amp_definitely_not_available", lambda: False),  # otherwise autocast switches itself off
        (torch.cuda, "is_bf16_supported", lambda *_, **__: True),
        (torch, "inference_mode", no_grad),
    ]
    originals = [getattr(owner, name) for owner, name, _ in replaced]
    for owner, name, value in replaced:
        setattr(owner, name, value)
    try:
        with FakeTensorMode(allow_non_fake_inputs=False):
            yield
    finally:
        for (owner, name, _), value in zip(replaced, originals, strict=True):
            setattr(owner, name, value)


def on_fake_cuda(module: nn.Module, device: torch.device = CUDA) -> None:
    """Give the parameters and buffers of a module on `meta` a fake device. Needs `fake_cuda`."""
    made: dict[int, Tensor] = {}
    for part in module.modules():
        stores: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
        for store in stores:
            for name, tensor in store.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
                    is_parameter = isinstance(tensor, nn.Parameter)
                    made[id(tensor)] = nn.Parameter(fake, requires_grad=tensor.requires_grad) if is_parameter else fake
                store[name] = made[id(tensor)]


def fake_compute(tier: Tier) -> Compute:
    """Return the compute of a fake GPU."""
    return Compute(device=CUDA, tier=tier)
