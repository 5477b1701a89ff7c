"""Count what operators do while a network runs: kernel launches, bytes read and written, arithmetic."""

from __future__ import annotations

import contextlib
import math
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import flop_registry

WITHOUT_KERNEL = frozenset(
    """
    view _unsafe_view permute transpose t expand slice select unsqueeze squeeze detach alias unbind split as_strided
    split_with_sizes lift_fresh device is_pinned sym_size sym_stride layout dim numel is_same_size sym_numel
    sym_storage_offset is_contiguous _reshape_alias unfold view_as empty new_empty empty_like empty_strided
    new_empty_strided diagonal chunk narrow
    """.split()  # noqa: SIM905 - a list of so many words is a page
)
"""Operators that launch nothing: views, and memory that is not written."""
ONLY_WRITTEN = frozenset(
    ("zeros", "full", "arange", "linspace", "new_zeros", "zeros_like", "ones", "new_full", "ones_like", "full_like")
)
"""Operators that read nothing."""
LIBRARIES = ("wsss_ray/", "transformers/models/", "segment_anything/")


@dataclass(kw_only=True)
class Work:
    """Sums over the calls of one operator."""

    launches: int = 0
    flops: float = 0.0
    bytes: float = 0.0
    """Read and written, each operand once. Gathered rows count as often as they are read."""


@dataclass(kw_only=True)
class Count:
    """Sums over a part of the work, by operator."""

    operators: dict[str, Work] = field(default_factory=dict)
    """By the operator's name and, for matrix products and attention, the dtype of the result."""
    lines: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Bytes by operator and line of code."""
    weight_bytes_cast: float = 0.0
    """Bytes of parameters read to make copies in another dtype."""
    waits: int = 0
    """Copies from the host's pageable memory, for which the host waits. Reading a value raises on a fake device."""

    def add(self, key: str, *, flops: float, nbytes: float) -> None:
        """Add a launch."""
        work = self.operators.setdefault(key, Work())
        work.launches += 1
        work.flops += flops
        work.bytes += nbytes

    @property
    def launches(self) -> int:
        """Launches of all operators."""
        return sum(work.launches for work in self.operators.values())

    @property
    def flops(self) -> float:
        """Arithmetic of all operators: a multiplication and an addition are two."""
        return sum(work.flops for work in self.operators.values())

    @property
    def bytes(self) -> float:
        """Bytes read and written by all operators."""
        return sum(work.bytes for work in self.operators.values())


@contextlib.contextmanager
def counting(parameters: Iterator[Tensor] | None = None) -> Iterator[Count]:
    """Count the operators that run inside.

    Args:
        parameters: weights whose casts are counted apart.
    """
    count = Count()
    weights = {id(parameter) for parameter in parameters or ()}
    original = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = _attention(count)
    try:
        with _Mode(count, weights):
            yield count
    finally:
        functional.scaled_dot_product_attention = original


def bytes_of(tensor: Tensor) -> int:
    """Return the bytes of the elements of a tensor; expanded ones count once."""
    return math.prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride) * (
        tensor.element_size() if tensor.numel() else 0
    )


class _Mode(TorchDispatchMode):
    def __init__(self, count: Count, weights: set[int]) -> None:
        super().__init__()
        self._count = count
        self._weights = weights

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in WITHOUT_KERNEL:
            return out
        read = (args, {key: value for key, value in (kwargs or {}).items() if key != "out"})
        inputs = [value for value in tree_flatten(read)[0] if isinstance(value, Tensor)]
        outputs = [value for value in tree_flatten(out)[0] if isinstance(value, Tensor)]
        if name in ("_to_copy", "copy_") and {tensor.device.type for tensor in (*inputs, *outputs)} == {"cpu", "cuda"}:
            self._count.waits += 1
        if name in COSTS:
            for kernel, arithmetic, traffic in COSTS[name](args, out):
                self._count.add(kernel, flops=arithmetic, nbytes=traffic)
                self._count.lines[f"{kernel} {_line()}"] += traffic
            return out
        known = func.overloadpacket in flop_registry
        flops = float(flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=out)) if known else 0.0
        operands = outputs if name in ONLY_WRITTEN else [inputs[0], inputs[-1]] if name == "copy_" else None
        nbytes = float(sum(map(bytes_of, [*inputs, *outputs] if operands is None else operands)))
        key = f"{name} {str(outputs[0].dtype).removeprefix('torch.')}" if flops else name
        self._count.add(key, flops=flops, nbytes=nbytes)
        self._count.lines[f"{name} {_line()}"] += nbytes
        if name == "_to_copy" and id(inputs[0]) in self._weights:
            self._count.weight_bytes_cast += bytes_of(inputs[0])
        return out


def _line() -> str:
    """Return the innermost line of the networks' code."""
    for frame in reversed(traceback.extract_stack()[:-2]):
        if any(library in frame.filename for library in LIBRARIES) and "/cost/" not in frame.filename:
            return f"{frame.filename.split('site-packages/')[-1].split('wsss_ray/models/')[-1]}:{frame.lineno}"
    return "?"


Launches = list[tuple[str, float, float]]
"""Of an operator's kernels: name, arithmetic, bytes."""


def _embedding_bag(args: tuple[Any, ...], out: Any) -> Launches:
    table, indices = args[0], args[1]
    gathered = indices.numel() * table.shape[1] * table.element_size()
    return [("embedding_bag", 0.0, gathered + 3 * bytes_of(indices) + bytes_of(out[0]))]


def _sample(args: tuple[Any, ...], out: Tensor) -> Launches:
    values, points, reference = args[:3]
    rows = points.numel() // 3 * 4  # corners
    channels = values.shape[2] // args[5]
    gathered = rows * channels * values.element_size()
    nbytes = gathered + bytes_of(points) + bytes_of(reference) + bytes_of(out)
    return [("sample float32", 2.0 * rows * channels, nbytes)]


def _attend(args: tuple[Any, ...], out: Tensor) -> Launches:
    qkv, _, table, heads, window = args
    batch, height, width, channels = out.shape
    dtype = str(qkv.dtype).removeprefix("torch.")
    near = batch * height * width * heads * table.shape[1]
    first = (f"bmm {dtype}", 2.0 * near * table.shape[0], bytes_of(out) + near * qkv.element_size())
    side = window or height
    padded = 1 << (side - 1).bit_length()
    queries, keys = (-(-side * padded // step) * step for step in (64, max(64, padded)))
    windows = batch * -(-height // side) * -(-width // side)
    flops = 4.0 * windows * queries * keys * channels
    return [first, (f"attention {dtype}", flops, bytes_of(qkv) + near * qkv.element_size() + bytes_of(out))]


def _addmm_activation(args: tuple[Any, ...], out: Tensor) -> Launches:
    left, right = args[1:3]
    flops = 2.0 * left.shape[0] * left.shape[1] * right.shape[1]
    return [(f"addmm {str(out.dtype).removeprefix('torch.')}", flops, sum(map(bytes_of, (*args[:3], out))))]


COSTS: dict[str, Callable[[tuple[Any, ...], Any], Launches]] = {
    "_embedding_bag": _embedding_bag,
    "_embedding_bag_forward_only": _embedding_bag,
    "_addmm_activation": _addmm_activation,
    "sample": _sample,
    "attend": _attend,
}
"""The kernels of operators whose cost does not follow from the sizes of operands, from arguments and result."""


def _attention(count: Count) -> Callable[..., Tensor]:
    """Return a stand-in for fused attention that counts it as one kernel."""

    def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **_: object) -> Tensor:
        if torch.is_autocast_enabled("cuda"):
            dtype = torch.get_autocast_dtype("cuda")
            query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
            if attn_mask is not None and attn_mask.is_floating_point():
                attn_mask = attn_mask.to(dtype)
        batch, heads, queries, channels = query.shape
        nbytes = bytes_of(query) + bytes_of(key) + bytes_of(value) + batch * heads * queries * value.shape[3] * 2
        if attn_mask is not None:
            nbytes += bytes_of(attn_mask)
            if any(stride % 8 for stride in attn_mask.stride()[:-1]):  # the fused kernels want aligned rows
                count.add("copy of an attention mask", flops=0, nbytes=2 * bytes_of(attn_mask))
        flops = 2 * batch * heads * queries * key.shape[2] * (channels + value.shape[3])
        count.add(f"attention {str(query.dtype).removeprefix('torch.')}", flops=flops, nbytes=nbytes)
        out = torch.empty(batch, queries, heads, value.shape[3], dtype=query.dtype, device=query.device)
        return out.transpose(1, 2)

    return attention
