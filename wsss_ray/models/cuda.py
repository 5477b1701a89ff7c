"""Check before the first image that CUDA starts in this process, and that its GPU runs a precision."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import torch
from torch.nn import functional

OLDEST_DRIVERS = {11: 450, 12: 525, 13: 580}
"""Oldest driver branch of Linux that runs a CUDA of this major version (NVIDIA's table of CUDA compatibility)."""
NATIVE_CAPABILITY = 8
"""Major compute capability from which a GPU multiplies bfloat16 and TF32 itself (Ampere)."""
ALLOCATOR_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
"""Variables that set PyTorch's allocator: the newest name and the older ones, which all versions read."""

_DRIVER_FILE = Path("/proc/driver/nvidia/version")
_SIDE = 16
"""Side of the small kernel's matrices, whose products are exact in every precision."""


class GpuError(ValueError):
    """A GPU that cannot be used as configured; the text says why and what to do."""


def use_expandable_segments() -> None:
    """Let PyTorch's allocator grow its segments, so that images of many sizes do not fragment the memory.

    It reads the variable when it first allocates on a GPU. A value that the user has set is kept.
    """
    if torch.version.cuda and not any(os.environ.get(name) for name in ALLOCATOR_VARIABLES):
        os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"


def why_cuda_does_not_start() -> str:
    """Return why this process has no CUDA GPU: PyTorch's reason, the driver, what the wheel needs, and what to do."""
    wheel, here = torch.version.cuda, socket.gethostname()
    if wheel is None:
        return (
            f"CUDA does not start on {here}: this PyTorch ({torch.__version__}) was built without CUDA. Install a "
            "build with CUDA (https://pytorch.org/get-started/locally), or give device: cpu."
        )
    driver, oldest = driver_version(), OLDEST_DRIVERS.get(int(wheel.partition(".")[0]))
    needs = f"needs driver {oldest} or newer" if oldest else "needs a newer driver"
    if driver is None:
        advice = "Install NVIDIA's driver on this node and, in a container, let its runtime pass the GPUs on"
    elif oldest and int(driver.partition(".")[0]) < oldest:
        advice = (
            "Update the driver, or install a PyTorch for an older CUDA (pip install torch torchvision --index-url "
            "https://download.pytorch.org/whl/cu126)"
        )
    else:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        advice = (
            f"Check nvidia-smi on this node, CUDA_VISIBLE_DEVICES (here {visible!r}), and the GPUs that Ray gives each "
            "actor (--ray.gpus-per-actor)"
        )
    return (
        f"CUDA does not start on {here}: {_reason()} The driver is {driver or 'not found'}; this PyTorch "
        f"({torch.__version__}) is for CUDA {wheel}, which {needs}. {advice}, or give device: cpu."
    )


def driver_version() -> str | None:
    """Return the version of NVIDIA's kernel driver, such as "535.104.05"; None where there is none (or no Linux)."""
    try:
        found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", _DRIVER_FILE.read_text(encoding="utf-8"))
    except OSError:
        return None
    return found[0] if found else None


def _reason() -> str:
    """Return the first sentence of what PyTorch says when CUDA is to start."""
    try:
        torch.cuda.init()
        torch.cuda.current_device()
    except (RuntimeError, AssertionError) as error:
        text = " ".join(str(error).split())
        return re.split(r"(?<=[a-z)])\. ", text)[0].rstrip(".") + "."
    return "it reports no GPU."


def check_gpu(tier: str) -> None:
    """Check that the current GPU runs this PyTorch and a precision, by one small kernel of each kind.

    Args:
        tier: float32, tf32, bfloat16 or float16.

    Raises:
        GpuError: it does not; says what to do.
    """
    name, (major, minor) = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    gpu = f"the GPU {name} (compute capability {major}.{minor}) on {socket.gethostname()}"
    built = torch.cuda.get_arch_list()
    if not torch.version.hip and not has_code_for(major, minor, built):
        raise GpuError(
            f"this PyTorch ({torch.__version__}) has no code for {gpu}: it was built for {' '.join(built)}. Install a "
            "build for this GPU (older ones need a PyTorch for CUDA 12: pip install torch torchvision --index-url "
            "https://download.pytorch.org/whl/cu126), or give device: cpu."
        )
    if tier in ("bfloat16", "tf32") and not torch.version.hip and major < NATIVE_CAPABILITY:
        raise GpuError(
            f"precision {tier} is not native on {gpu}: it would be {'emulated' if tier == 'bfloat16' else 'float32'}. "
            "Give precision float16 or float32 to every model (--config gpu-t4 does), or the run GPUs of compute "
            f"capability {NATIVE_CAPABILITY}.0 or newer."
        )
    try:
        product, convolved = _small_kernels(tier)
    except RuntimeError as error:
        text = " ".join(str(error).split())[:300].rstrip(".")
        held = " Another process holds its memory (nvidia-smi)." if isinstance(error, torch.OutOfMemoryError) else ""
        raise GpuError(f"{gpu} cannot run a small kernel in {tier}: {text}.{held}") from error
    if (product, convolved) != (4.0, 4.5):
        raise GpuError(f"{gpu} computes wrong in {tier}: {product} and {convolved} in place of 4.0 and 4.5.")


def has_code_for(major: int, minor: int, built: list[str]) -> bool:
    """Return whether a PyTorch built for these architectures ("sm_80", "compute_90", ...) runs on a GPU.

    Machine code runs on GPUs of the same major version and an equal or higher minor one; intermediate code on all newer
    ones.
    """
    for architecture in built:
        kind, _, number = architecture.partition("_")
        digits = re.match(r"\d+", number)
        if digits is None:
            continue
        version = divmod(int(digits[0]), 10)
        exact = digits[0] != number  # a suffix, as in sm_90a: code for this GPU alone
        if kind == "compute" and version <= (major, minor):
            return True
        if kind == "sm" and version[0] == major and (version[1] == minor if exact else version[1] <= minor):
            return True
    return False


def _small_kernels(tier: str) -> tuple[float, float]:
    """Return an element of a matrix product (4.0) and of a convolution (4.5), computed in a precision."""
    dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(tier, torch.float32)
    halves = torch.full((_SIDE, _SIDE), 0.5, device="cuda", dtype=dtype)
    product = halves @ halves
    convolved = functional.conv2d(halves[None, None], torch.ones(1, 1, 3, 3, device="cuda", dtype=dtype))
    both = torch.stack([product[0, 0], convolved[0, 0, 0, 0]]).tolist()
    return both[0], both[1]


def gpu_name() -> str | None:
    """Return the name of the GPU that this process computes on; None where it has not used one."""
    return torch.cuda.get_device_name() if torch.cuda.is_initialized() else None
