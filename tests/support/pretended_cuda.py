"""A pretended CUDA GPU: tensors that say they lie on cuda:0 and compute on the CPU, with real values.

Operators run under CUDA's autocast rules. A CPU tensor beside one of the GPU raises, as on a GPU. Every wait of the
host for the device and every copy from memory that is not pinned is counted, with the line that makes it. A copy to the
host that does not wait brings its values when the host waits next. A backward pass does nothing.

>>> with pretended_cuda() as gpu:
...     labels = Labeller(config).label(images, tags)
>>> gpu.syncs
Counter({"wsss_ray/models/sam/boxes.py:159 _local_scalar_dense": 4, ...})
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn
from unittest import mock

import torch
import torch.cuda.amp.common
from repository import REPOSITORY
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("cuda", 0)
READING = {"_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "bincount", "_unique2"}
READING |= {"unique_dim", "unique_consecutive", "repeat_interleave"}
"""Operators whose result, or its size, the host reads: it waits for the device."""
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
COPYING = {"_to_copy", "copy_", "to"}


class DeviceError(RuntimeError):
    """A CPU tensor beside one of the GPU."""


@dataclass
class PretendedGpu:
    """What the pretended GPU counts, by the line of the code that caused it ("file:line operator")."""

    syncs: Counter[str] = field(default_factory=Counter)
    """Waits of the host for the device."""
    pageable: Counter[str] = field(default_factory=Counter)
    """Copies to the device from memory that is not pinned, or that the host waits for."""
    launches: int = 0
    """Operators with a kernel."""
    pinned: set[int] = field(default_factory=set)
    """Addresses of pinned memory."""
    unfinished: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Copies to the host that nothing has waited for: where they go, and what they bring."""

    def count_wait(self, what: str = "synchronize") -> None:
        """Count a wait of the host, after which all copies to it are done."""
        self.syncs[where(what)] += 1
        for host, value in self.unfinished:
            host.copy_(value)
        self.unfinished.clear()

    def copy_later(self, value: Tensor) -> Tensor:
        """Return memory of the host that holds something else until the host waits for the device."""
        host = torch.empty_like(value).fill_(85)
        self.unfinished.append((host, value.clone()))
        return host

    def reset(self) -> None:
        """Start to count anew."""
        self.syncs.clear()
        self.pageable.clear()
        self.launches = 0


class OnGpu(Tensor):
    """A tensor of the pretended GPU around its data on the CPU."""

    data_on_cpu: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, data: Tensor, requires_grad: bool = False) -> OnGpu:
        made: OnGpu = torch.Tensor._make_wrapper_subclass(
            cls,
            data.size(),
            strides=data.stride(),
            storage_offset=data.storage_offset(),
            dtype=data.dtype,
            layout=data.layout,
            device=DEVICE,
            requires_grad=requires_grad,
        )
        made.data_on_cpu = data
        return made

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"OnGpu({tuple(self.shape)}, {self.dtype})"

    def tolist(self) -> Any:
        """Return the values, as a GPU's tensor does: by a copy to the host."""
        return self.cpu().tolist()

    def backward(self, *_: object, **__: object) -> None:  # type: ignore[override]
        """Do nothing: autograd does not go through these tensors."""

    def numpy(self, *, force: bool = False) -> NoReturn:
        """Refuse, as a GPU's tensor does."""
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *_: object, **__: object) -> NoReturn:
        self.numpy()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of pretended_cuda()")


class _Mode(TorchDispatchMode):
    """Runs every operator: on the CPU where no tensor is of the GPU, else pretended."""

    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self._gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        mine = [tensor for tensor in tensors if isinstance(tensor, OnGpu)]
        others = [tensor for tensor in tensors if not isinstance(tensor, OnGpu)]
        target = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
        to_gpu = target is not None and target.type == "cuda"
        if not mine and not to_gpu:
            return self._on_cpu(func, name, args, kwargs)
        self._check(name, args, kwargs, mine, others)
        if name in COPYING:
            to_cpu = target is not None and target.type == "cpu"
            if to_cpu or (name == "copy_" and not isinstance(args[0], OnGpu)):
                if not kwargs.get("non_blocking"):
                    self._gpu.count_wait("copy to the host")
            elif others:
                self._count_copy_to_gpu(others[-1], kwargs)
        if name in READING:
            self._gpu.count_wait(name)
        if name in INDEXING and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        ):
            self._gpu.count_wait("boolean index")
        if not _is_view(func):
            self._gpu.launches += 1
        if to_gpu:
            kwargs["device"] = torch.device("cpu")
        kwargs.pop("pin_memory", None)
        return self._run(func, name, args, kwargs, mine, target)

    def _on_cpu(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name in ("_pin_memory", "pin_memory"):
            return self._pin(args[0].clone())
        if name == "is_pinned":
            return args[0].data_ptr() in self._gpu.pinned
        pinned = kwargs.pop("pin_memory", False)
        result = func(*args, **kwargs)
        return self._pin(result) if pinned else result

    def _pin(self, tensor: Tensor) -> Tensor:
        self._gpu.pinned.add(tensor.data_ptr())
        return tensor

    def _check(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], mine: list[OnGpu], others: list[Tensor]
    ) -> None:
        """Raise where tensors of two devices meet. A CPU tensor without a dimension may: it is a number."""
        if not mine or not others or name in COPYING:
            return
        wrong = [tensor for tensor in others if tensor.dim() > 0]
        if name in INDEXING:  # indices may lie on the CPU: they are copied, and the host waits
            values = args[2] if len(args) > 2 else None
            wrong = [tensor for tensor in wrong if tensor is args[0] or tensor is values]
            self._gpu.pageable[where("index on the CPU")] += 1
        if wrong:
            shapes = [tuple(tensor.shape) for tensor in wrong]
            raise DeviceError(f"{name}: tensors {shapes} of the CPU beside those of the GPU, at {where(name)}")

    def _count_copy_to_gpu(self, source: Tensor, kwargs: dict[str, Any]) -> None:
        if not (source.data_ptr() in self._gpu.pinned and kwargs.get("non_blocking")):
            self._gpu.pageable[where("copy to the device")] += 1

    def _run(
        self,
        func: Any,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        mine: list[OnGpu],
        target: torch.device | None,
    ) -> Any:
        values, options = tree_map(_data_of, args), tree_map(_data_of, kwargs)
        if name in ("_softmax", "_log_softmax") and values[2]:  # half to float, which the CPU does not know
            values = (values[0].float(), values[1], False)
        result = func(*values, **options)
        if name in ("_local_scalar_dense", "equal", "is_nonzero"):
            return result
        if target is not None and target.type == "cpu":
            if options.get("non_blocking"):
                return self._gpu.copy_later(result)
            return result.clone() if result is values[0] else result
        if name == "copy_" and not isinstance(args[0], OnGpu):
            return result
        known = {id(tensor.data_on_cpu): tensor for tensor in mine}
        return tree_map(lambda leaf: _on_gpu(leaf, known), result)


def _data_of(leaf: Any) -> Any:
    return leaf.data_on_cpu if isinstance(leaf, OnGpu) else leaf


def _on_gpu(leaf: Any, known: dict[int, OnGpu]) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    return known[id(leaf)] if id(leaf) in known else OnGpu(leaf)


@functools.cache
def _is_view(func: Any) -> bool:
    """Return whether an operator only describes its input anew: by the aliases in its schema, none of them written."""
    returns = func._schema.returns
    return bool(returns) and all(value.alias_info is not None and not value.alias_info.is_write for value in returns)


def where(what: str) -> str:
    """Return "file:line what" of the innermost frame that is code of this package or of a model that it uses."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        ours = name.startswith(str(REPOSITORY / "wsss_ray"))
        if ours or "transformers/models" in name or "segment_anything" in name:
            return f"{name.removeprefix(f'{REPOSITORY}/').rpartition('site-packages/')[2]}:{frame.f_lineno} {what}"
        frame = frame.f_back  # type: ignore[assignment]
    return f"?:0 {what}"


class _Event:
    """A CUDA event of a GPU that is always done: only the wait for it counts."""

    def __init__(self, gpu: PretendedGpu, *, enable_timing: bool = False) -> None:
        self._gpu = gpu
        self._timed = enable_timing

    def record(self, *_: object) -> None:
        """Record nothing."""

    def query(self) -> bool:
        """Return that the work is done."""
        return True

    def synchronize(self) -> None:
        """Count a wait."""
        self._gpu.count_wait()

    def elapsed_time(self, _: _Event) -> float:
        """Return one millisecond between any two events."""
        assert self._timed
        return 1.0


@contextlib.contextmanager
def _in_this_thread(gpu: PretendedGpu) -> Iterator[None]:
    lift = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(..., device="cuda")` then is a copy that the mode sees
    try:
        with _Mode(gpu):
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(lift)


def _everywhere(gpu: PretendedGpu, run: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    """Return `Thread.run` that pretends in the new thread, too: modes apply to one thread."""

    def pretending(thread: threading.Thread) -> None:
        with _in_this_thread(gpu):
            run(thread)

    return pretending


def _attention(gpu: PretendedGpu, real: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return CUDA's scaled_dot_product_attention: autocast casts its inputs, and it takes no mask of another dtype."""

    def attend(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *args: Any, **options: Any
    ) -> Tensor:
        if not isinstance(query, OnGpu):
            return real(query, key, value, attn_mask, *args, **options)
        if torch.is_autocast_enabled("cuda"):
            dtype = torch.get_autocast_dtype("cuda")
            query, key, value = (tensor.to(dtype) for tensor in (query, key, value))
            if attn_mask is not None and attn_mask.is_floating_point():
                attn_mask = attn_mask.to(dtype)
        assert query.dtype == key.dtype == value.dtype, (query.dtype, key.dtype, value.dtype)
        assert attn_mask is None or attn_mask.dtype in (torch.bool, query.dtype), (attn_mask.dtype, query.dtype)
        data = [_data_of(tensor) for tensor in (query, key, value, attn_mask)]
        lost = [tensor for tensor in (key, value, attn_mask) if tensor is not None and not isinstance(tensor, OnGpu)]
        if lost:
            raise DeviceError(f"attention: tensors of the CPU beside those of the GPU, at {where('attention')}")
        gpu.launches += 1
        return OnGpu(real(*data, *args, **options))

    return attend


def _inference_mode(mode: bool = True) -> contextlib.AbstractContextManager[None]:
    """Return a context without gradients: real inference mode hides the operators behind `Tensor.to`."""
    return torch.no_grad() if mode else contextlib.nullcontext()


@contextlib.contextmanager
def pretended_cuda(
    *, name: str = "NVIDIA A100-SXM4-80GB", capability: tuple[int, int] = (8, 0), built: tuple[str, ...] = ("sm_80",)
) -> Iterator[PretendedGpu]:
    """Pretend that this process has a CUDA GPU; yields what it counts.

    Args:
        name: of the GPU.
        capability: its compute capability.
        built: architectures for which PyTorch was built.
    """
    gpu = PretendedGpu()
    names: list[tuple[Any, str, Any]] = [
        (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        (torch.cuda, "is_available", lambda: True),
        (torch.cuda, "is_initialized", lambda: True),
        (torch.cuda, "device_count", lambda: 1),
        (torch.cuda, "_lazy_init", lambda: None),
        (torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or capability[0] >= 8),
        (torch.cuda, "get_device_name", lambda *_: name),
        (torch.cuda, "get_device_capability", lambda *_: capability),
        (torch.cuda, "get_arch_list", lambda: list(built)),
        (torch.cuda, "empty_cache", lambda: None),
        (torch.cuda, "max_memory_reserved", lambda *_: 0),
        (torch.cuda, "synchronize", lambda *_: gpu.count_wait()),
        (torch.cuda, "Event", functools.partial(_Event, gpu)),
        (threading.Thread, "run", _everywhere(gpu, threading.Thread.run)),
        (torch, "inference_mode", _inference_mode),
        (functional, "scaled_dot_product_attention", _attention(gpu, functional.scaled_dot_product_attention)),
    ]
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    with contextlib.ExitStack() as stack:
        for owner, attribute, value in names:
            stack.enter_context(mock.patch.object(owner, attribute, value))
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrite)
        torch._C._ensureCUDADeviceGuardSet()
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # `Module.to` makes parameters of the GPU
        stack.enter_context(_in_this_thread(gpu))
        yield gpu
