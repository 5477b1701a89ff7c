"""SAM's image encoder against the package's: resizing, attention in pieces, features."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import random_models
import torch
from sam_cases import LIKE_VIT_B
from segment_anything.modeling.image_encoder import Attention
from segment_anything.utils.transforms import ResizeLongestSide

from wsss_ray.models.device import Compute
from wsss_ray.models.fast import ops
from wsss_ray.models.fast.sam_encoder import PiecewiseAttention, _pieces
from wsss_ray.models.fast.sam_half import HalfEncoder
from wsss_ray.models.sam.encoder import ImageEncoder, resize_longest_side, resized_size
from wsss_ray.models.sam.loading import load_sam

CPU = Compute(device=torch.device("cpu"), tier="float32")


@pytest.mark.parametrize("side", [1024, 128])
@pytest.mark.parametrize("size", [(375, 500), (1, 1), (200, 8000), (641, 427), (1024, 768), (3, 2), (2000, 1500)])
def test_resizing_is_the_packages_bit_by_bit(size: tuple[int, int], side: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize_longest_side(image, side), ResizeLongestSide(side).apply_image(image))


def test_the_shorter_side_keeps_a_pixel() -> None:
    assert resized_size(5000, 2, 1024) == (1024, 1)
    assert resized_size(100, 200, 1024) == (512, 1024)


@pytest.mark.parametrize(("side", "batch"), [(14, 5), (16, 2)])
@pytest.mark.parametrize("rows_at_once", [1, 3, 14, 40, 10_000])
def test_attention_in_pieces_is_the_packages(side: int, batch: int, rows_at_once: int) -> None:
    torch.manual_seed(0)
    package = Attention(48, num_heads=3, use_rel_pos=True, input_size=(side, side))
    with torch.inference_mode():
        for table in (package.rel_pos_h, package.rel_pos_w):
            table.normal_(0, 0.5)  # zero as initialised, which would hide the positions
        inputs = torch.randn(batch, side, side, 48)
        ours = PiecewiseAttention(package, bias_bytes=rows_at_once * side**3 * 4)
        expected = package(inputs)
        torch.testing.assert_close(ours(inputs), expected, rtol=0, atol=1e-6)
        for table in (package.rel_pos_h, package.rel_pos_w):
            table.zero_()
        assert (package(inputs) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("rows_at_once", [0, 1, 4, 5, 9, 10, 11, 34, 35, 100])
def test_pieces_cover_everything_once_within_the_bound(rows_at_once: int) -> None:
    covered = np.zeros((2, 3, 5), int)
    for piece in _pieces(2, 3, 5, rows_at_once):
        covered[piece] += 1
        assert covered[piece].size <= max(1, rows_at_once)
    assert (covered == 1).all()


@pytest.mark.parametrize("config", [random_models.SAM_CONFIG, LIKE_VIT_B], ids=["windows of 7", "windows of 14"])
def test_features_are_the_packages(tmp_path: Path, config: dict) -> None:
    weights = random_models.write_sam(tmp_path, seed=1, config=config)
    assert json.loads((weights / "config.json").read_text()) == config
    package = load_sam("tiny", weights)
    encoder = ImageEncoder(load_sam("tiny", weights), CPU)
    side = config["image_size"]
    generator = np.random.default_rng(3)
    shapes = [(side, side // 2), (side // 3, side), (side, side)]
    pictures = [generator.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    features = encoder.encode(pictures)
    for picture, ours in zip(pictures, features, strict=True):
        pixels = torch.from_numpy(picture).permute(2, 0, 1)[None]
        with torch.inference_mode():
            expected = package.image_encoder(package.preprocess(pixels))[0]
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
        assert torch.equal(encoder.encode([picture])[0], ours)


def test_float16_that_overflows_runs_again_in_float32(tmp_path: Path) -> None:
    """As on a GPU, where this precision is meant for."""
    weights = random_models.write_sam(tmp_path, seed=1)
    half = ImageEncoder(load_sam("tiny", weights), Compute(device=torch.device("cpu"), tier="float16"))
    picture = np.random.default_rng(0).integers(0, 256, (128, 100, 3), dtype=np.uint8)
    assert half.encode([picture]).isfinite().all()
    assert half.float32_fallbacks == 0
    sam = load_sam("tiny", weights)
    sam.image_encoder.neck[0].weight.mul_(1e6)  # a norm follows, so that the features stay as they were
    half = ImageEncoder(sam, Compute(device=torch.device("cpu"), tier="float16"))
    features = half.encode([picture, picture])
    assert half.float32_fallbacks == 2
    expected = ImageEncoder(load_sam("tiny", weights), CPU).encode([picture, picture])
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [(480, 640), (375, 500), (427, 641), (1200, 900), (1, 3)])
def test_the_fast_resizing_is_within_a_grey_level(size: tuple[int, int]) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (size[0] // 8 + 1, size[1] // 8 + 1, 3), dtype=np.uint8)
    image = coarse.repeat(8, axis=0).repeat(8, axis=1)[: size[0], : size[1]]
    exact, fast = (resize_longest_side(image, 1024, backend) for backend in ("pil", "torchvision"))
    assert fast.dtype == np.uint8
    assert fast.shape == exact.shape
    difference = np.abs(fast.astype(int) - exact)
    assert difference.max() <= 1
    assert difference.mean() < (1e-9 if size in ((480, 640), (375, 500)) else 3e-3)
    image.flags.writeable = False
    np.testing.assert_array_equal(resize_longest_side(image, 1024, "torchvision"), fast)


@pytest.mark.processes
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_compiled_features_are_the_same(tmp_path: Path) -> None:
    weights = random_models.write_sam(tmp_path, seed=1)
    picture = np.random.default_rng(0).integers(0, 256, (128, 100, 3), dtype=np.uint8)
    expected = ImageEncoder(load_sam("tiny", weights), CPU).encode([picture])
    compiled = ImageEncoder(load_sam("tiny", weights), CPU, compile_mode="default")
    torch.testing.assert_close(compiled.encode([picture]), expected, rtol=0, atol=1e-5)


@pytest.mark.processes
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
@torch.inference_mode()
def test_the_encoder_of_a_gpu_can_be_compiled(tmp_path: Path) -> None:
    sam = load_sam("tiny", random_models.write_sam(tmp_path, seed=1))
    images = torch.randn(1, 3, sam.image_encoder.img_size, sam.image_encoder.img_size)
    expected = sam.image_encoder(images)
    encoder = HalfEncoder(sam.image_encoder, torch.float32, ops.attend)
    compiled = torch.compile(encoder, mode="default", dynamic=False)
    torch.testing.assert_close(compiled(images), expected, rtol=0, atol=1e-5)


def test_what_cannot_be_compiled_runs_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", fail)
    torch._dynamo.reset()
    weights = random_models.write_sam(tmp_path, seed=1)
    picture = np.random.default_rng(0).integers(0, 256, (128, 100, 3), dtype=np.uint8)
    expected = ImageEncoder(load_sam("tiny", weights), CPU).encode([picture])
    encoder = ImageEncoder(load_sam("tiny", weights), CPU, compile_mode="default")
    torch.testing.assert_close(encoder.encode([picture]), expected, rtol=0, atol=1e-5)
    torch._dynamo.reset()
