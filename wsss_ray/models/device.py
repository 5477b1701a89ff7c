"""Where and in which arithmetic a model runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

Tier = Literal["float32", "tf32", "bfloat16", "float16"]
AUTOCAST_DTYPES: dict[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Compute:
    """A resolved device and precision. Weights stay float32; the lower tiers are autocast."""

    device: torch.device
    """Where the weights and inputs live."""
    tier: Tier
    """float32: strict, no TF32. tf32: TF32 matrix products and convolutions. bfloat16, float16: autocast,
    whose float32 islands stay strict."""

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """Dtype of the autocast tiers, None for float32 and tf32."""
        return AUTOCAST_DTYPES.get(self.tier)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run a model at this precision, without gradients; restores the process's TF32 settings after."""
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
    """Whether an error says that this process can use its GPU no more: CUDA answers every later call with the same.

    Too little memory is no such error.
    """
    text = str(error)
    passing = ("out of memory", "ALLOC_FAILED", "NOT_INITIALIZED")  # the last two: libraries that got no memory
    return isinstance(error, RuntimeError) and "CUDA error" in text and not any(word in text for word in passing)


def to_device(array: NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """An array as a tensor there: copied to a GPU from pinned memory, beside what it computes; on the CPU it shares the
    array's memory, or that of a copy where the array is not to be written to.
    """
    pixels = torch.from_numpy(array if array.flags.writeable else array.copy())
    return pixels.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else pixels


def resolve_compute(device: str, precision: str) -> Compute:
    """Choose from `device` (auto, cpu, cuda) and `precision` (auto, float32, tf32, bfloat16, float16).

    auto is CUDA where this process sees a GPU, and bfloat16 there; float32 on the CPU and on GPUs without
    native bfloat16, which a warning names. A CPU without bfloat16 emulates it, with a warning. Raises ValueError for
    an absent device and for a precision that the device cannot run.
    """
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise ValueError(
            "device is cuda, but this process sees no CUDA GPU. Use device: cpu or auto, or check the "
            "driver, CUDA_VISIBLE_DEVICES and the GPUs that Ray gives each actor (gpus_per_actor)."
        )
    resolved = torch.device("cuda" if device == "cuda" or (device == "auto" and has_cuda) else "cpu")
    if precision == "auto":
        return Compute(device=resolved, tier=_automatic_tier(resolved))
    if resolved.type == "cpu" and precision in ("tf32", "float16"):
        raise ValueError(f"precision {precision} needs a CUDA GPU; on the CPU use auto, float32 or bfloat16.")
    if precision not in get_args(Tier):
        raise ValueError(f"precision is {precision!r}: it must be one of auto, {', '.join(get_args(Tier))}.")
    if resolved.type == "cpu" and precision == "bfloat16" and not has_bfloat16(_capabilities()):
        logger.warning(
            "this processor has no bfloat16 instructions: precision bfloat16 is emulated, 2 to 100 times slower than "
            "float32 and less exact. Use precision float32 or auto."
        )
    return Compute(device=resolved, tier=cast(Tier, precision))


def has_bfloat16(capabilities: Mapping[str, Any]) -> bool:
    """Whether a CPU multiplies in bfloat16, by what `torch.cpu.get_capabilities` says, or oneDNN if that is silent."""
    known = [capabilities[name] for name in ("avx512_bf16", "amx_bf16", "bf16") if name in capabilities]
    return any(known) if known else has_onednn_bfloat16()


def has_onednn_bfloat16() -> bool:
    """Whether oneDNN has code for bfloat16 on this CPU, be it emulated: AVX-512, on ARM its bfloat16 instructions."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _capabilities() -> Mapping[str, Any]:
    """Instruction sets of this CPU; none where torch is too old to tell."""
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


def _automatic_tier(device: torch.device) -> Tier:
    if device.type == "cpu":
        return "float32"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16"
    logger.warning(
        "%s has no native bfloat16: precision auto runs in float32. precision float16 is faster there.",
        torch.cuda.get_device_name(device),
    )
    return "float32"
