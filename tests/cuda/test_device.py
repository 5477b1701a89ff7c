"""What is checked of a GPU before the first image, and what the errors say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from pretended_cuda import pretended_cuda

from wsss_ray.models import cuda
from wsss_ray.models.cuda import GpuError, has_code_for
from wsss_ray.models.device import resolve_compute

T4 = {"name": "Tesla T4", "capability": (7, 5), "built": ("sm_75", "sm_80")}
DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Thu Jun  1 2023\nGCC version: gcc version 12.3.0\n"


@pytest.fixture(autouse=True)
def allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what a test sets for the allocator."""
    for name in cuda.ALLOCATOR_VARIABLES:
        monkeypatch.setenv(name, "")


def test_auto_on_a_gpu_is_bfloat16_where_it_is_native(caplog: pytest.LogCaptureFixture) -> None:
    with pretended_cuda():
        compute = resolve_compute("auto", "auto")
        assert (compute.device.type, compute.tier) == ("cuda", "bfloat16")
    assert not caplog.text
    with pretended_cuda(**T4):
        assert resolve_compute("auto", "auto").tier == "float32"
    assert "Tesla T4 has no native bfloat16" in caplog.text


@pytest.mark.parametrize(
    ("gpu", "precision", "text"),
    [
        (T4, "bfloat16", r"bfloat16 is not native on the GPU Tesla T4 .*7\.5.* emulated\. Give .*--config gpu-t4"),
        (T4, "tf32", r"tf32 is not native on the GPU Tesla T4 .* would be float32\."),
        (
            {"name": "Tesla V100-SXM2-16GB", "capability": (7, 0), "built": ("sm_75", "sm_80")},
            "float32",
            r"no code for the GPU Tesla V100.*7\.0.* built for sm_75 sm_80\. Install .*whl/cu126.* device: cpu",
        ),
    ],
)
def test_a_gpu_that_cannot_have_the_precision_is_refused(gpu: dict, precision: str, text: str) -> None:
    with pretended_cuda(**gpu), pytest.raises(GpuError, match=text):
        resolve_compute("cuda", precision)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_t4_has_the_other_precisions(precision: str) -> None:
    with pretended_cuda(**T4) as gpu:
        assert resolve_compute("cuda", precision).tier == precision
        assert gpu.launches > 0


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RuntimeError("CUDA error: no kernel image is available"), "cannot run a small kernel in float16: CUDA error"),
        (torch.OutOfMemoryError("CUDA out of memory."), r"out of memory\. Another process holds its memory"),
    ],
)
def test_a_small_kernel_that_fails_is_named(error: Exception, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(tier: str) -> tuple[float, float]:
        raise error

    monkeypatch.setattr(cuda, "_small_kernels", fail)
    with pretended_cuda(), pytest.raises(GpuError, match=text):
        resolve_compute("cuda", "float16")


def test_a_gpu_that_computes_wrong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_small_kernels", lambda tier: (4.0, 4.25))
    with pretended_cuda(), pytest.raises(GpuError, match=r"computes wrong in bfloat16: 4\.0 and 4\.25"):
        resolve_compute("cuda", "bfloat16")


@pytest.mark.parametrize(
    ("capability", "built", "runs"),
    [
        ((8, 9), ["sm_80", "sm_86"], True),  # an L4 runs the code of an A10
        ((8, 0), ["sm_86"], False),
        ((9, 0), ["sm_80"], False),
        ((9, 0), ["sm_80", "compute_80"], True),
        ((9, 0), ["sm_90a"], True),
        ((12, 1), ["sm_120"], True),
        ((12, 1), ["sm_120a"], False),
        ((7, 0), ["sm_75", "compute_75"], False),
        ((8, 0), [], False),
    ],
)
def test_code_runs_on_its_own_architecture_and_higher_minor_ones(
    capability: tuple[int, int], built: list[str], runs: bool
) -> None:
    assert has_code_for(*capability, built) is runs


def cuda_stops(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *, driver: str | None, wheel: str | None = "13.0"
) -> None:
    """Let this machine have a GPU on which CUDA does not start."""
    file = folder / "version"
    if driver is not None:
        file.write_text(DRIVER.format(driver))
    monkeypatch.setattr(cuda, "_DRIVER_FILE", file)
    monkeypatch.setattr(torch.version, "cuda", wheel)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    def start() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 12020). Please update it.")

    monkeypatch.setattr(torch.cuda, "init", start)


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_gpu_whose_cuda_does_not_start_is_an_error_and_not_the_cpu(
    device: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cuda_stops(monkeypatch, tmp_path, driver="535.104.05")
    with pytest.raises(GpuError) as caught:
        resolve_compute(device, "auto")
    text = str(caught.value)
    assert "CUDA does not start on" in text
    assert "too old (found version 12020). The driver is 535.104.05" in text
    assert "is for CUDA 13.0, which needs driver 580 or newer. Update the driver, or install a PyTorch" in text
    assert text.endswith("or give device: cpu.")
    assert "\n" not in text
    assert resolve_compute("cpu", "auto").device.type == "cpu"


@pytest.mark.parametrize(
    ("driver", "wheel", "text"),
    [
        (None, "13.0", "The driver is not found; .* Install NVIDIA's driver on this node"),
        ("580.65.06", "13.0", "The driver is 580.65.06; .* Check nvidia-smi .*CUDA_VISIBLE_DEVICES .*gpus-per-actor"),
        ("535.104.05", "12.8", "which needs driver 525 or newer. Check nvidia-smi"),
        ("535.104.05", None, "was built without CUDA. Install a build with CUDA"),
    ],
)
def test_the_error_says_what_to_mend(
    driver: str | None, wheel: str | None, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cuda_stops(monkeypatch, tmp_path, driver=driver, wheel=wheel)
    with pytest.raises(GpuError, match=text):
        resolve_compute("cuda", "auto")


def test_the_allocator_grows_its_segments_unless_the_user_has_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    for name in cuda.ALLOCATOR_VARIABLES:
        monkeypatch.delenv(name)
    with pretended_cuda():
        resolve_compute("cuda", "float32")
    assert os.environ["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    for name in cuda.ALLOCATOR_VARIABLES:
        monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
        monkeypatch.setenv(name, "max_split_size_mb:128")
        cuda.use_expandable_segments()
        assert os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "") in ("", "max_split_size_mb:128")
        assert os.environ[name] == "max_split_size_mb:128"
        monkeypatch.delenv(name)


def test_a_run_on_the_cpu_leaves_the_allocator_alone() -> None:
    resolve_compute("cpu", "float32")
    assert not any(os.environ.get(name) for name in cuda.ALLOCATOR_VARIABLES)
