"""Linear layers with their activation, through oneDNN on the CPU.

torch's own float32 product on x86 is MKL's, which on the processors with AVX-512 that were measured takes 10 to
20 % longer than oneDNN's, fills the output with the bias beforehand and leaves the activation to a further pass. The
operator is the one that `torch.compile` uses. Equal but for rounding (float32: 1e-6 of the largest value). Elsewhere it
is torch's own: with AVX2 alone oneDNN's takes 10 to 65 % longer (with GELU most), and refuses bfloat16.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsss_ray.models.device import has_onednn_bfloat16

Activation = Literal["none", "relu", "gelu"]


def _dtypes() -> tuple[torch.dtype, ...]:
    """What is multiplied by oneDNN: float32 and bfloat16 where it has code for both, else neither."""
    return (torch.float32, torch.bfloat16) if has_onednn_bfloat16() else ()


DTYPES = _dtypes()


class FusedLinear(nn.Module):
    """`nn.Linear` and what follows it, for inference; shares its parameters."""

    def __init__(self, linear: nn.Linear, activation: Activation = "none") -> None:
        """Take the weights of `linear`; `gelu` is the exact one."""
        super().__init__()
        self.weight = linear.weight
        self.bias = linear.bias
        self.activation: Activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out); in autocast's dtype where that is on."""
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        # the compiler chooses for itself
        if not torch.compiler.is_compiling() and x.device.type == "cpu":
            dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
            if dtype in DTYPES:
                x, weight = x.to(dtype), weight.to(dtype)
                bias = None if bias is None else bias.to(dtype)
                fused: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, self.activation, [], "none")
                return fused
        output = functional.linear(x, weight, bias)
        if self.activation == "relu":
            return output.relu_()
        return functional.gelu(output) if self.activation == "gelu" else output


def fuse_activation(parent: nn.Module, linear: str, activation: str, name: str) -> None:
    """Join a linear layer of `parent` with the activation module behind it, where `name` is one of `FusedLinear`."""
    kinds: dict[str, Activation] = {"relu": "relu", "gelu": "gelu"}
    if name in kinds:
        setattr(parent, linear, FusedLinear(getattr(parent, linear), kinds[name]))
        setattr(parent, activation, nn.Identity())


def replace_linears(module: nn.Module) -> None:
    """Put a `FusedLinear` in the place of every plain `nn.Linear` below `module`."""
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, FusedLinear(child))
        else:
            replace_linears(child)
