"""Device and precision: the meaning of auto, refused settings, and that settings of the process are restored."""

import contextlib
from dataclasses import replace

import pytest
import torch

from wsss_ray.config import DetectorConfig
from wsss_ray.models import device
from wsss_ray.models.device import has_bfloat16, has_onednn_bfloat16, resolve_compute
from wsss_ray.models.precision import decide, resolve

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")


@NO_GPU
def test_auto_without_a_gpu_is_float32_on_the_cpu() -> None:
    compute = resolve_compute("auto", "auto")
    assert (compute.device.type, compute.tier, compute.autocast_dtype) == ("cpu", "float32", None)


@NO_GPU
def test_an_absent_gpu_is_an_error_not_a_fallback() -> None:
    with pytest.raises(ValueError, match=r"CUDA does not start on .* device: cpu"):
        resolve_compute("cuda", "auto")


@pytest.mark.parametrize("precision", ["tf32", "float16"])
def test_precisions_of_gpus_are_refused_on_the_cpu(precision: str) -> None:
    with pytest.raises(ValueError, match=f"{precision} needs a CUDA GPU"):
        resolve_compute("cpu", precision)


def test_auto_is_decided_by_what_the_gpus_have() -> None:
    assert resolve("auto", "auto", has_gpus=True) == ("cuda", "bfloat16")
    assert resolve("auto", "auto", has_gpus=True, has_bfloat16=False) == ("cuda", "float32")
    assert resolve("auto", "float16", has_gpus=True, has_bfloat16=False) == ("cuda", "float16")
    assert resolve("auto", "auto", has_gpus=False) == ("cpu", "float32")
    assert resolve("cpu", "auto", has_gpus=True) == ("cpu", "float32")


def test_decided_settings_have_no_auto() -> None:
    settings = DetectorConfig(model="demo", batch_size=3)
    assert decide(settings, has_gpus=True) == replace(settings, device="cuda", precision="bfloat16")
    assert decide(settings, has_gpus=False) == replace(settings, device="cpu", precision="float32")


def test_an_unknown_precision_names_the_valid_ones() -> None:
    with pytest.raises(ValueError, match="float32, tf32, bfloat16, float16"):
        resolve_compute("cpu", "bf16")


def test_running_casts_and_needs_no_gradients() -> None:
    weights = torch.nn.Linear(4, 4)
    for precision, dtype in [("float32", torch.float32), ("bfloat16", torch.bfloat16)]:
        with resolve_compute("cpu", precision).running():
            result = weights(torch.ones(1, 4))
        assert result.dtype == dtype
        assert not result.requires_grad


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"architecture": "x86_64", "avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"architecture": "x86_64", "avx512_f": True, "avx512_bf16": True, "amx_bf16": False}, True),
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": True}, True),
        ({"architecture": "aarch64", "neon": True, "bf16": False}, False),
        ({"architecture": "aarch64", "neon": True, "bf16": True}, True),
        ({}, has_onednn_bfloat16()),  # a torch that does not report it
    ],
)
def test_emulated_bfloat16_is_warned_of(
    capabilities: dict[str, object],
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert has_bfloat16(capabilities) is expected
    monkeypatch.setattr(device, "_capabilities", lambda: capabilities)
    assert resolve_compute("cpu", "bfloat16").tier == "bfloat16"
    assert ("no bfloat16 instructions" in caplog.text) is not expected
    caplog.clear()
    for precision in ("auto", "float32"):
        resolve_compute("cpu", precision)
    assert not caplog.text


def test_this_processor_reports_its_instructions() -> None:
    """By the names that the warning depends on."""
    reported = device._capabilities()
    if not reported:
        pytest.skip("this torch does not report instruction sets")
    assert {"avx512_bf16", "amx_bf16"} <= set(reported) or "bf16" in reported


def test_strict_float32_turns_tf32_off_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_float32_matmul_precision()
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.set_float32_matmul_precision("high")
    try:
        with contextlib.suppress(KeyError), resolve_compute("cpu", "float32").running():
            during = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
            raise KeyError
        assert during == ("highest", False)
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("high", True)
    finally:
        torch.set_float32_matmul_precision(before)
