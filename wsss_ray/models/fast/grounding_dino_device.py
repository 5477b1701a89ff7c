"""Grounding DINO on a GPU: deformable sampling by one kernel, and features in 16 bits without autocast.

Coordinates, their refinement, the scores of proposals and the outputs stay under autocast, in float32 where they were.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.grounding_dino.modeling_grounding_dino import GroundingDinoDecoderOutput

from wsss_ray.models.fast import ops, self_check
from wsss_ray.models.fast.grounding_dino import BagSampling, FoldedFusion
from wsss_ray.models.fast.half import InHalf, cast_inputs, to_half
from wsss_ray.models.fast.linear import FusedLinear, fuse_activation, join_linears
from wsss_ray.models.fast.swin_device import use_device_windows

LOGIT_EPS = 1e-5
"""Where the inverse sigmoid is cut, as in transformers."""

PHOTO_MAPS = ((100, 134), (50, 67), (25, 34), (13, 17))
"""Feature maps of a photo of 480 x 640."""


def use_device_layers(network: PreTrainedModel, dtype: torch.dtype, sample: ops.Sample | None = None) -> None:
    """Replace layers of a network with fast layers on its GPU in place.

    Args:
        network: its images must never be padded.
        dtype: of the features.
        sample: `ops.sample` or `ops.stock_sample`. Unset: what `self_check` chooses.
    """
    model = network.model
    sample = sample or _choose_sampling(model.encoder.layers[0].deformable_layer.self_attn, dtype)
    for layer in model.encoder.layers:
        layer.deformable_layer.self_attn = DeviceSampling(layer.deformable_layer.self_attn, sample)
        layer.fusion_layer = DeviceFusion(layer.fusion_layer)
    for layer in model.decoder.layers:
        layer.encoder_attn = DeviceSampling(layer.encoder_attn, sample)
    model.decoder = DeviceDecoder(model.decoder)
    model.encoder = DeviceEncoder(model.encoder)
    use_device_windows(model.backbone)
    for layer in model.text_backbone.encoder.layer:
        fuse_activation(layer.intermediate, "dense", "intermediate_act_fn", model.text_backbone.config.hidden_act)


def _choose_sampling(sampling: BagSampling, dtype: torch.dtype) -> ops.Sample:
    """Compare the kernel with stock operators on one photo."""
    weight: Tensor = sampling.value_proj.weight  # type: ignore[assignment]
    device, channels = weight.device, weight.shape[0]
    points = sampling.attention_weights.bias.numel()  # type: ignore[operator]
    shapes = torch.tensor(PHOTO_MAPS[-sampling.levels :], device=device)
    starts = torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]])
    positions = sum(height * width for height, width in PHOTO_MAPS[-sampling.levels :])
    cases = []
    for queries, coordinates in ((positions, 2), (900, 4)):
        values = torch.randn(1, positions, channels, dtype=dtype, device=device)
        spread = torch.randn(1, queries, 3 * points, dtype=dtype, device=device)
        reference = torch.rand(1, queries, sampling.levels, coordinates, device=device)
        cases.append((values, spread, reference, shapes, starts, sampling.heads))
    return self_check.choose("deformable sampling", ops.sample, ops.stock_sample, cases)


def use_half(network: PreTrainedModel, dtype: torch.dtype) -> None:
    """Cast the weights of a network with device layers. It then still needs autocast to `dtype` around it."""
    model = network.model
    backbone = model.backbone.conv_encoder
    backbone.model = InHalf(backbone.model, dtype)
    model.text_backbone = InHalf(model.text_backbone, dtype)
    encoder: DeviceEncoder = model.encoder
    features = ("vision_features", "vision_position_embedding", "text_features", "text_position_embedding")
    encoder.encoder = InHalf(encoder.encoder, dtype, inputs=features)
    memory = ("vision_encoder_hidden_states", "text_encoder_hidden_states")
    model.decoder.layers = nn.ModuleList(
        InHalf(layer, dtype, inputs=("hidden_states", "position_embeddings", *memory)) for layer in model.decoder.layers
    )
    cast_inputs(model.decoder, dtype, memory)  # once for all of its layers
    for module in network.modules():
        if isinstance(module, nn.Linear | FusedLinear | nn.Conv2d):
            to_half(module, dtype)


class DeviceEncoder(nn.Module):
    """The encoder of image and text. The text's positions are encoded once; outputs are float32, for the proposals."""

    def __init__(self, encoder: Any) -> None:
        """Wrap the encoder of transformers."""
        super().__init__()
        self.encoder = encoder

    def forward(self, *, text_features: Tensor, text_position_ids: Tensor, **others: Any) -> Any:
        """Return the encoder's outputs; arguments as the original."""
        others["text_position_embedding"] = encode_positions(
            text_position_ids[..., None].float(), text_features.shape[-1]
        )
        outputs = self.encoder(text_features=text_features, text_position_ids=text_position_ids, **others)
        outputs.last_hidden_state_vision = outputs.last_hidden_state_vision.float()
        outputs.last_hidden_state_text = outputs.last_hidden_state_text.float()
        return outputs


class DeviceFusion(nn.Module):
    """The function of transformers' `GroundingDinoFusionLayer`; what positions receive is added by the product."""

    def __init__(self, layer: Any) -> None:
        """Share the parameters of a layer whose attention is a `FoldedFusion`."""
        super().__init__()
        self.layer_norm_vision: nn.Module = layer.layer_norm_vision
        self.layer_norm_text: nn.Module = layer.layer_norm_text
        self.attn: FoldedFusion = layer.attn
        self.vision_param: nn.Parameter = layer.vision_param
        self.text_param: nn.Parameter = layer.text_param

    def forward(
        self, *, vision_features: Tensor, text_features: Tensor, attention_mask_text: Tensor | None, **_: object
    ) -> tuple[tuple[Tensor, None], tuple[Tensor, None]]:
        """Return vision and text features, each with None in place of attention weights. No position is masked."""
        vision, text = self.layer_norm_vision(vision_features), self.layer_norm_text(text_features)
        weights, folded, read = self.attn.mix(vision, text, None, attention_mask_text)
        seen = torch.baddbmm(vision.to(folded.dtype), weights, folded * self.vision_param.to(read.dtype))
        return (seen, None), (text + self.text_param * read, None)


class DeviceDecoder(nn.Module):
    """The function of transformers' `GroundingDinoDecoder`, without the outputs of the earlier layers."""

    def __init__(self, decoder: Any) -> None:
        """Share the parameters of `decoder`."""
        super().__init__()
        self.config: Any = decoder.config
        self.layers: nn.ModuleList = decoder.layers
        self.layer_norm: nn.Module = decoder.layer_norm
        self.reference_points_head: nn.Module = decoder.reference_points_head
        self.bbox_embed: nn.ModuleList = decoder.bbox_embed

    def forward(
        self,
        *,
        inputs_embeds: Tensor,
        reference_points: Tensor,
        valid_ratios: Tensor,
        text_encoder_attention_mask: Tensor,
        **inputs: Any,
    ) -> GroundingDinoDecoderOutput:
        """Return the states of the last layer and the boxes (B, 2, Q, 4) before and after it; arguments as theirs."""
        hidden, before = inputs_embeds, reference_points
        dtype = inputs["text_encoder_hidden_states"].dtype
        shape = (-1, self.config.decoder_attention_heads, self.config.num_queries, -1)
        mask = text_encoder_attention_mask[:, None, None].to(dtype) * torch.finfo(dtype).min
        for name in ("output_attentions", "output_hidden_states", "return_dict", "self_attn_mask"):
            inputs.pop(name, None)
        ratios = torch.cat([valid_ratios, valid_ratios], -1)[:, None]
        for index, layer in enumerate(self.layers):
            before = reference_points
            located = reference_points[:, :, None] * ratios
            encoded = encode_positions(located[:, :, 0], self.config.d_model // 2)
            hidden = layer(
                hidden_states=hidden,
                position_embeddings=self.reference_points_head(encoded),
                reference_points=located,
                text_encoder_attention_mask=mask.expand(shape),
                **inputs,
            )[0]
            moved = self.bbox_embed[index](hidden) + torch.special.logit(reference_points, eps=LOGIT_EPS)
            reference_points = moved.sigmoid()
        last = self.layer_norm(hidden)
        return GroundingDinoDecoderOutput(
            last_hidden_state=last,
            intermediate_hidden_states=last[:, None],
            intermediate_reference_points=torch.stack([before, reference_points], 1),
        )


def encode_positions(coordinates: Tensor, features: int) -> Tensor:
    """Return the sines and cosines (..., n features) of coordinates (..., n), y before x, as transformers' encoding.

    A cosine is the sine a quarter turn ahead, so all are one kernel.
    """
    index = torch.arange(features, device=coordinates.device)
    turns = 2 * math.pi * 10000.0 ** (-2 * (index // 2) / features)
    if coordinates.shape[-1] > 1:
        coordinates = torch.cat([coordinates[..., :2].flip(-1), coordinates[..., 2:]], -1)
    return torch.addcmul((index % 2) * (math.pi / 2), coordinates[..., None], turns).sin().flatten(-2)


class DeviceSampling(nn.Module):
    """The function of `BagSampling` with one product for offsets and scores, and one call that samples.

    Padding of images is not supported: no position is masked.
    """

    def __init__(self, sampling: BagSampling, sample: ops.Sample) -> None:
        """Share the parameters of `sampling`, but for those of offsets and scores, which are joined."""
        super().__init__()
        self.heads: int = sampling.heads
        self.value_proj: nn.Module = sampling.value_proj
        self.output_proj: nn.Module = sampling.output_proj
        self._sample = sample
        self.points = join_linears([sampling.sampling_offsets, sampling.attention_weights])

    def forward(
        self,
        hidden_states: Tensor,
        *,
        encoder_hidden_states: Tensor,
        reference_points: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        position_embeddings: Tensor | None = None,
        **others: object,  # noqa: ARG002 - further arguments of the original
    ) -> tuple[Tensor, None]:
        """Return the (B, Q, C) samples of the queries; arguments as `BagSampling`."""
        queries = hidden_states if position_embeddings is None else hidden_states + position_embeddings
        values = self.value_proj(encoder_hidden_states)
        sampled = self._sample(
            values, self.points(queries), reference_points, spatial_shapes, level_start_index, self.heads
        )
        return self.output_proj(sampled), None
