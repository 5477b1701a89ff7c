"""Each replaced layer against the layer of transformers that it replaces, and the whole network of both families."""

from pathlib import Path

import pytest
import random_models
import torch
from torch import nn
from torch.nn import functional
from transformers import GroundingDinoConfig
from transformers.models.grounding_dino.modeling_grounding_dino import (
    GroundingDinoBiMultiHeadAttention,
    GroundingDinoMultiheadAttention,
    GroundingDinoMultiscaleDeformableAttention,
)

from wsss_ray.models.detector.files import load_network
from wsss_ray.models.fast import linear, sampling
from wsss_ray.models.fast.grounding_dino import BagSampling, FoldedFusion, FusedAttention, use_fast_layers
from wsss_ray.models.fast.linear import FusedLinear, fuse_activation

CONFIG = GroundingDinoConfig(d_model=32, encoder_ffn_dim=128, encoder_attention_heads=8, attention_dropout=0.0)
SHAPES = [(6, 7), (3, 4), (2, 2), (1, 1)]
POSITIONS = sum(height * width for height, width in SHAPES)
BATCH = 3


def randomised(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.5)
    return module.eval().requires_grad_(False)


@pytest.mark.parametrize("coordinates", [2, 4])
@pytest.mark.parametrize("queries_at_once", [1, 7, 1000])
def test_sampling(coordinates: int, queries_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets of several pixels reach beyond every border."""
    monkeypatch.setitem(sampling.SAMPLING_BYTES, "cpu", queries_at_once * 8 * 16 * 4 * 8)
    original = randomised(GroundingDinoMultiscaleDeformableAttention(CONFIG, num_heads=8, n_points=4))
    shapes = torch.tensor(SHAPES)
    inputs = {
        "hidden_states": torch.randn(BATCH, 20, 32),
        "attention_mask": torch.rand(BATCH, POSITIONS) > 0.2,
        "encoder_hidden_states": torch.randn(BATCH, POSITIONS, 32),
        "position_embeddings": torch.randn(BATCH, 20, 32),
        "reference_points": torch.rand(BATCH, 20, 4, coordinates),
        "spatial_shapes": shapes,
        "spatial_shapes_list": SHAPES,
        "level_start_index": torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]]),
    }
    expected = original(**inputs)[0]
    torch.testing.assert_close(BagSampling(original)(**inputs)[0], expected, rtol=0, atol=1e-4)
    assert expected.abs().max() > 1
    moved = {**inputs, "reference_points": inputs["reference_points"] + 0.05}
    assert (original(**moved)[0] - expected).abs().max() > 0.1


@pytest.mark.parametrize("padded", [False, True])
def test_fusion(padded: bool) -> None:
    original = randomised(GroundingDinoBiMultiHeadAttention(CONFIG))
    positions, tokens = torch.randn(BATCH, 50, 32), torch.randn(BATCH, 6, 32)
    masks = (torch.rand(BATCH, 50) > 0.8, torch.arange(6) >= torch.tensor([[6], [3], [5]])) if padded else (None, None)
    (seen, _), (read, _) = original(positions, tokens, *masks)
    (our_seen, _), (our_read, _) = FoldedFusion(original)(positions, tokens, *masks)
    torch.testing.assert_close(our_seen, seen, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(our_read, read, rtol=1e-4, atol=1e-4)
    assert seen.std() > 0.5
    assert read.std() > 0.5


def test_attention() -> None:
    original = randomised(GroundingDinoMultiheadAttention(CONFIG, num_attention_heads=8))
    queries, keys = torch.randn(BATCH, 9, 32), torch.randn(BATCH, 5, 32)
    mask = torch.zeros(BATCH, 8, 9, 5)
    mask[1, ..., 3:] = torch.finfo(torch.float32).min
    for inputs in ((queries, keys, keys), (queries, keys, keys, mask)):
        torch.testing.assert_close(FusedAttention(original)(*inputs)[0], original(*inputs)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("known", [linear.DTYPES, (torch.float32,), ()], ids=["here", "float32 by oneDNN", "torch"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
def test_linear(activation: str, bias: bool, known: tuple[torch.dtype, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "DTYPES", known)
    functions = {"none": nn.Identity(), "relu": nn.ReLU(), "gelu": nn.GELU()}
    pair = nn.Sequential(randomised(nn.Linear(16, 24, bias=bias)), functions[activation])
    fused = FusedLinear(pair[0], activation)  # type: ignore[arg-type]
    for inputs in (torch.randn(2, 3, 16), torch.randn(5, 16), torch.randn(16, 7).t(), torch.randn(2, 4, 4, 16)):
        torch.testing.assert_close(fused(inputs), pair(inputs), rtol=0, atol=1e-5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = fused(inputs)
        assert low.dtype == torch.bfloat16
        assert functional.mse_loss(low.float(), pair(inputs)).sqrt() < 0.02


@pytest.mark.parametrize(
    ("available", "bfloat16", "expected"),
    [(True, True, (torch.float32, torch.bfloat16)), (True, False, ()), (False, True, ())],
)
def test_onednn_multiplies_where_it_has_bfloat16(
    available: bool, bfloat16: bool, expected: tuple[torch.dtype, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: available)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: bfloat16)
    assert linear._dtypes() == expected


def test_only_known_activations_are_joined() -> None:
    parent = nn.Module()
    parent.fc1, parent.act = nn.Linear(4, 4), nn.SiLU()
    fuse_activation(parent, "fc1", "act", "silu")
    assert isinstance(parent.act, nn.SiLU)
    parent.act = nn.ReLU()
    fuse_activation(parent, "fc1", "act", "relu")
    assert isinstance(parent.fc1, FusedLinear)
    assert isinstance(parent.act, nn.Identity)


@pytest.mark.parametrize("family", ["grounding-dino", "mm-grounding-dino"])
def test_network(family: str, tmp_path: Path) -> None:
    """Two images, prompts of different length."""
    directory = random_models.write_detector(tmp_path, family, seed=3)
    torch.manual_seed(1)
    inputs = {
        "pixel_values": torch.randn(2, 3, 96, 130),
        "input_ids": torch.tensor([[101, 200, 1012, 201, 202, 1012, 102], [101, 203, 1012, 102, 0, 0, 0]]) % 300,
        "attention_mask": torch.tensor([[1] * 7, [1] * 4 + [0] * 3]),
    }
    with torch.inference_mode():
        expected = load_network(directory)(**inputs)
        fast = load_network(directory)
        use_fast_layers(fast)
        ours = fast(**inputs)
    for name in ("encoder_last_hidden_state_vision", "encoder_last_hidden_state_text"):
        difference = (getattr(ours, name) - getattr(expected, name)).abs().max()
        assert difference < 1e-4 * getattr(expected, name).abs().max(), name
    # proposals of equal score may be swapped
    same = (ours.pred_boxes - expected.pred_boxes).abs().amax(-1) < 1e-3
    assert same.float().mean() > 0.9
    assert expected.pred_boxes[same].std(0).min() > 0.01
