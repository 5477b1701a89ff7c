"""Networks in 16 bits on a GPU without autocast, which would cast their weights in every forward pass.

Weights and activations are float16 or bfloat16; sums inside normalizations, softmax and products stay float32, as the
kernels themselves keep them.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)

ALIGNED = 8
"""Fused attention wants rows of a bias that begin at multiples of so many elements; otherwise it copies the bias."""


def half_copy(module: ModuleT, dtype: torch.dtype, *, keep: Collection[nn.Module] = ()) -> ModuleT:
    """Return a copy of a module with its floating-point parameters and buffers in another dtype.

    Args:
        module: its tensors stay as they are.
        dtype: float16 or bfloat16.
        keep: parts whose tensors the copy shares.
    """
    kept = {id(tensor) for part in keep for tensor in (*part.parameters(), *part.buffers())}
    memo: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        cast: Tensor = tensor
        if tensor.is_floating_point() and id(tensor) not in kept:
            cast = tensor.detach().to(dtype)
        memo[id(tensor)] = nn.Parameter(cast, requires_grad=False) if isinstance(tensor, nn.Parameter) else cast
    return copy.deepcopy(module, memo)


def to_half(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast the floating-point parameters and buffers of a module in place. Shared ones stay shared."""
    made: dict[int, Tensor] = {}
    for part in module.modules():
        stores: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
        for store in stores:
            for name, tensor in store.items():
                if tensor is None or not tensor.is_floating_point():
                    continue
                if id(tensor) not in made:
                    cast = tensor.detach().to(dtype)
                    made[id(tensor)] = nn.Parameter(cast, requires_grad=False) if name in part._parameters else cast
                store[name] = made[id(tensor)]


class InHalf(nn.Module):
    """Runs a module whose weights are in 16 bits without autocast: inputs are cast, outputs are left."""

    def __init__(self, module: nn.Module, dtype: torch.dtype, *, inputs: Collection[str] = ()) -> None:
        """Wrap `module`, which is cast in place.

        Args:
            module: its forward takes positional arguments, which are all cast, and keyword arguments.
            dtype: float16 or bfloat16.
            inputs: keyword arguments to cast; others, such as coordinates, keep their precision.
        """
        super().__init__()
        to_half(module, dtype)
        self.module = module
        self._dtype = dtype
        self._inputs = frozenset(inputs)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the wrapped module where the wrapper has none."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the module's output."""
        args = tuple(_cast(value, self._dtype) for value in args)
        kwargs = _cast_named(kwargs, self._dtype, self._inputs)
        tensor = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        with torch.autocast(tensor.device.type, enabled=False):
            return self.module(*args, **kwargs)


def cast_inputs(module: nn.Module, dtype: torch.dtype, inputs: Collection[str]) -> None:
    """Cast keyword arguments of every call of a module."""

    def cast(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, _cast_named(kwargs, dtype, inputs)

    module.register_forward_pre_hook(cast, with_kwargs=True)


def _cast_named(kwargs: dict[str, Any], dtype: torch.dtype, inputs: Collection[str]) -> dict[str, Any]:
    return {name: _cast(value, dtype) if name in inputs else value for name, value in kwargs.items()}


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
