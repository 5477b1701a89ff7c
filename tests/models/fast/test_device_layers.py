"""Grounding DINO with the layers of a GPU, run on the CPU: the boxes of transformers, and in 16 bits nearly so."""

from __future__ import annotations

from pathlib import Path

import pytest
import random_models
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.grounding_dino.modeling_grounding_dino import encode_sinusoidal_position_embedding

from wsss_ray.models.detector.files import load_network
from wsss_ray.models.detector.network import run_network
from wsss_ray.models.fast import ops
from wsss_ray.models.fast.grounding_dino import use_fast_layers
from wsss_ray.models.fast.grounding_dino_device import encode_positions, use_device_layers, use_half

FAMILIES = ["grounding-dino", "mm-grounding-dino"]


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Two images whose feature maps are no multiples of the windows, prompts of different length."""
    torch.manual_seed(1)
    ids = torch.tensor([[101, 200, 1012, 201, 202, 1012, 102], [101, 203, 1012, 102, 0, 0, 0]]) % 300
    return torch.randn(2, 3, 96, 130), ids, torch.tensor([[1] * 7, [1] * 4 + [0] * 3])


@pytest.fixture(scope="module", params=FAMILIES)
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_models.write_detector(tmp_path_factory.mktemp("detector"), request.param, seed=3)


def device_network(directory: Path, dtype: torch.dtype) -> PreTrainedModel:
    network = load_network(directory)
    use_fast_layers(network)
    use_device_layers(network, dtype, ops.sample)
    return network


def share_of_equal(boxes: Tensor, expected: Tensor, tolerance: float) -> float:
    """Proposals of equal score may be swapped, so not all are."""
    return float(((boxes - expected).abs().amax(-1) < tolerance).float().mean())


@torch.inference_mode()
def test_the_last_layer_alone_is_the_networks_output(directory: Path) -> None:
    network, (pixels, ids, mask) = load_network(directory), inputs()
    expected = network(pixel_values=pixels, input_ids=ids, attention_mask=mask)
    logits, boxes = run_network(network, pixels, ids, mask)
    assert torch.equal(logits, expected.logits)
    assert torch.equal(boxes, expected.pred_boxes)


@torch.inference_mode()
def test_boxes_are_those_of_transformers(directory: Path) -> None:
    logits, expected = run_network(load_network(directory), *inputs())
    ours, boxes = run_network(device_network(directory, torch.float32), *inputs())
    assert share_of_equal(boxes, expected, 1e-3) > 0.9
    assert expected.std(1).min() > 0.01
    finite = logits.isfinite()
    assert torch.equal(ours.isfinite(), finite)
    assert ((ours - logits)[finite].abs() < 1e-3).float().mean() > 0.9


@torch.inference_mode()
def test_sixteen_bits_are_as_exact_as_autocast(directory: Path) -> None:
    exact = load_network(directory).model
    pixels, ids, mask = inputs()
    features = exact(pixel_values=pixels, input_ids=ids, attention_mask=mask).encoder_last_hidden_state_vision
    half = device_network(directory, torch.bfloat16)
    use_half(half, torch.bfloat16)
    errors = []
    for network in (load_network(directory), half):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = network.model(pixel_values=pixels, input_ids=ids, attention_mask=mask)
        errors.append(float((found.encoder_last_hidden_state_vision - features).norm() / features.norm()))
    by_autocast, in_half = errors
    assert 1e-4 < by_autocast < 0.05
    assert in_half < 1.5 * by_autocast
    assert found.intermediate_reference_points.dtype == torch.float32
    weights = [module.weight for module in half.modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)]
    assert {weight.dtype for weight in weights} == {torch.bfloat16}


@pytest.mark.parametrize("coordinates", [1, 2, 4])
def test_positions_are_encoded_as_by_transformers(coordinates: int) -> None:
    torch.manual_seed(0)
    points = torch.rand(2, 5, coordinates)
    expected = encode_sinusoidal_position_embedding(points, num_pos_feats=16)
    torch.testing.assert_close(encode_positions(points, 16), expected, rtol=0, atol=1e-5)
