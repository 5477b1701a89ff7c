"""The device and the precision in which a model runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from numpy.typing import NDArray

from wsss_ray.models import cuda
from wsss_ray.models.precision import resolve

logger = logging.getLogger(__name__)

Tier = Literal["float32", "tf32", "bfloat16", "float16"]
AUTOCAST_DTYPES: dict[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Compute:
    """A resolved device and precision. Weights stay float32; the lower tiers are autocast."""

    device: torch.device
    """Device of the weights and inputs."""
    tier: Tier
    """float32: strict, no TF32. tf32: TF32 matrix products and convolutions. bfloat16, float16: autocast; its float32
    operations stay strict."""

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """Dtype of the autocast tiers, None for float32 and tf32."""
        return AUTOCAST_DTYPES.get(self.tier)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run a model at this precision, without gradients; afterwards the process's TF32 settings are restored."""
        matmul, convolution = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        tf32 = self.tier == "tf32"
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
        dtype = self.autocast_dtype
        try:
            with (
                torch.inference_mode(),
                torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None),
            ):
                yield
        finally:
            torch.set_float32_matmul_precision(matmul)
            torch.backends.cudnn.allow_tf32 = convolution


def is_device_lost(error: BaseException) -> bool:
    """Return whether the process has lost its CUDA context, so that every later CUDA call fails the same way.

    A lack of memory is no such error.
    """
    text = str(error)
    passing = ("out of memory", "ALLOC_FAILED", "NOT_INITIALIZED")  # the last two: a library got no memory
    return isinstance(error, RuntimeError) and "CUDA error" in text and not any(word in text for word in passing)


def to_device(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """Return an array as a tensor on the device.

    It is copied to a GPU from pinned memory, while the GPU computes. On the CPU it shares the memory of the array, or
    that of a copy where the array is read-only.
    """
    pixels = torch.from_numpy(array if array.flags.writeable else array.copy())
    return pixels.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else pixels


def resolve_compute(device: str, precision: str) -> Compute:
    """Return the device and precision for settings that may be `auto` (see `precision.resolve`).

    A GPU is checked by a small kernel in the precision. Warns where a GPU has no native bfloat16 and so `auto` is
    float32, and where a CPU emulates bfloat16.

    Args:
        device: auto, cpu or cuda. auto is the CPU only where this process sees no GPU at all.
        precision: auto, float32, tf32, bfloat16 or float16.

    Raises:
        ValueError: the device is absent or cannot run the precision.
    """
    has_cuda = device != "cpu" and torch.cuda.is_available()
    if not has_cuda and (device == "cuda" or (device == "auto" and torch.cuda.device_count())):
        raise cuda.GpuError(cuda.why_cuda_does_not_start())
    name, tier = resolve(
        device, precision, has_gpus=has_cuda, has_bfloat16=not has_cuda or _gpu_has_bfloat16(precision)
    )
    resolved = torch.device(name)
    if resolved.type == "cpu" and precision in ("tf32", "float16"):
        raise ValueError(f"precision {precision} needs a CUDA GPU; on the CPU use auto, float32 or bfloat16.")
    if tier not in get_args(Tier):
        raise ValueError(f"precision is {precision!r}: it must be one of auto, {', '.join(get_args(Tier))}.")
    if resolved.type == "cpu" and precision == "bfloat16" and not has_bfloat16(_capabilities()):
        logger.warning(
            "this processor has no bfloat16 instructions: precision bfloat16 is emulated, 2 to 100 times slower than "
            "float32 and less exact. Use precision float32 or auto."
        )
    if resolved.type == "cuda":
        cuda.use_expandable_segments()
        cuda.check_gpu(tier)
    return Compute(device=resolved, tier=cast(Tier, tier))


def has_bfloat16(capabilities: Mapping[str, Any]) -> bool:
    """Return whether a CPU multiplies in bfloat16, by `torch.cpu.get_capabilities`; by oneDNN where it does not say."""
    known = [capabilities[name] for name in ("avx512_bf16", "amx_bf16", "bf16") if name in capabilities]
    return any(known) if known else has_onednn_bfloat16()


def has_onednn_bfloat16() -> bool:
    """Return whether oneDNN runs bfloat16 on this CPU: AVX-512 (emulated), or the bfloat16 instructions of ARM."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _capabilities() -> Mapping[str, Any]:
    """Return the instruction sets of this CPU; an empty mapping where torch is too old to report them."""
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


def _gpu_has_bfloat16(precision: str) -> bool:
    """Return whether the GPU has native bfloat16, with a warning where it has not and `auto` would take it."""
    if precision != "auto" or torch.cuda.is_bf16_supported(including_emulation=False):
        return True
    logger.warning(
        "%s has no native bfloat16: precision auto runs in float32. precision float16 is faster there.",
        torch.cuda.get_device_name(),
    )
    return False
