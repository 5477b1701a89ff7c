"""Linear layers fused with their activation, by oneDNN on the CPU.

On x86 torch computes float32 products by MKL. On the measured processors with AVX-512 MKL takes 10 to 20 % longer than
oneDNN, writes the bias in a separate pass, and the activation needs another one. The operator is the one that
`torch.compile` uses. Results are equal but for rounding (float32: 1e-6 of the largest value). On other processors
torch's own product is used: with AVX2 alone oneDNN takes 10 to 65 % longer (most with GELU) and refuses bfloat16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsss_ray.models.device import has_onednn_bfloat16

Activation = Literal["none", "relu", "gelu"]


def _dtypes() -> tuple[torch.dtype, ...]:
    """Return the dtypes that oneDNN multiplies: float32 and bfloat16 where it has code for both, else none."""
    return (torch.float32, torch.bfloat16) if has_onednn_bfloat16() else ()


DTYPES = _dtypes()
HALF = (torch.float16, torch.bfloat16)


class FusedLinear(nn.Module):
    """`nn.Linear` and the activation behind it, for inference."""

    def __init__(self, linear: nn.Linear, activation: Activation = "none") -> None:
        """Share the parameters of `linear`. `gelu` is the exact form, not the tanh approximation."""
        super().__init__()
        self.weight = linear.weight
        self.bias = linear.bias
        self.activation: Activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Return the output: (..., in) -> (..., out), in autocast's dtype where autocast is on."""
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        # torch.compile chooses its own operators
        if not torch.compiler.is_compiling() and x.device.type == "cpu":
            dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
            if dtype in DTYPES:
                x, weight = x.to(dtype), weight.to(dtype)
                bias = None if bias is None else bias.to(dtype)
                fused: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, self.activation, [], "none")
                return fused
        if (
            self.activation != "none"
            and x.device.type != "cpu"
            and x.dtype == weight.dtype in HALF
            and bias is not None
        ):
            return linear_with_activation(x, weight, bias, self.activation)
        output = functional.linear(x, weight, bias)
        if self.activation == "relu":
            return output.relu_()
        return functional.gelu(output) if self.activation == "gelu" else output


def linear_with_activation(x: Tensor, weight: Tensor, bias: Tensor, activation: Activation) -> Tensor:
    """Return a linear layer's output after its activation, computed inside the product's kernel on a GPU.

    GELU is the tanh approximation there, applied before the sum is rounded to 16 bits. It is closer to the exact GELU
    in float32 than the exact one is when it reads a rounded sum.
    """
    flat = torch._addmm_activation(bias, x.flatten(0, -2), weight.t(), use_gelu=activation == "gelu")
    return flat.view(*x.shape[:-1], -1)


def fuse_activation(parent: nn.Module, linear: str, activation: str, name: str) -> None:
    """Fuse a linear layer with the activation behind it, where `FusedLinear` has that activation.

    Args:
        parent: the module that has both as attributes.
        linear: name of the attribute with the linear layer.
        activation: name of the attribute with the activation.
        name: kind of activation, as transformers names it.
    """
    kinds: dict[str, Activation] = {"relu": "relu", "gelu": "gelu"}
    if name in kinds:
        setattr(parent, linear, FusedLinear(getattr(parent, linear), kinds[name]))
        setattr(parent, activation, nn.Identity())


def replace_linears(module: nn.Module) -> None:
    """Replace every plain `nn.Linear` below `module` by a `FusedLinear`."""
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, FusedLinear(child))
        else:
            replace_linears(child)


def join_linears(linears: Sequence[Any]) -> FusedLinear:
    """Return one linear layer whose outputs are those of several with the same input, one after the other."""
    weight = torch.cat([linear.weight.detach() for linear in linears])
    joined = nn.Linear(weight.shape[1], weight.shape[0], bias=linears[0].bias is not None, device="meta")
    joined.weight = nn.Parameter(weight, requires_grad=False)
    if linears[0].bias is not None:
        joined.bias = nn.Parameter(torch.cat([linear.bias.detach() for linear in linears]), requires_grad=False)
    return FusedLinear(joined)
