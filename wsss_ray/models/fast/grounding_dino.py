"""Fast layers of Grounding DINO: the functions of the package's layers, but for rounding, with fewer operations.

- *Deformable sampling* interpolates values of the feature maps and sums them with attention weights. Both are weights
  of one sum over rows of a table, which `embedding_bag` computes in one pass. The original makes a grid, samples each
  level, stacks, multiplies and adds.
- *Fusion* of image and text has a few tokens and thousands of positions. As in `sam_decoder`, the projections are
  folded into the tokens, so that positions are never projected: q . k = (W_q x + b_q) . k = x . (W_q^T k) + b_q . k,
  and a weighted mean of projected values is the projection of the weighted mean.
- *Attention* among queries never holds its score matrix.
- *Linear layers* include the activation behind them (`linear`).
"""

# ruff: noqa: N803, N806  shape suffixes: B images, S positions, T tokens, C channels, h heads of d channels, Q queries,
# L levels, P points a level

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.models.swin.modeling_swin import SwinMLP

from wsss_ray.models.fast.linear import fuse_activation, replace_linears
from wsss_ray.models.fast.sampling import sample


def use_fast_layers(network: PreTrainedModel) -> None:
    """Replace layers of a loaded Grounding DINO or MM Grounding DINO in place. Its weights must be final."""
    model, config = network.model, network.config
    for layer in model.encoder.layers:
        layer.fusion_layer.attn = FoldedFusion(layer.fusion_layer.attn)
        layer.deformable_layer.self_attn = BagSampling(layer.deformable_layer.self_attn)
        fuse_activation(layer.deformable_layer, "fc1", "activation_fn", config.activation_function)
    for layer in model.decoder.layers:
        layer.encoder_attn = BagSampling(layer.encoder_attn)
        layer.self_attn = FusedAttention(layer.self_attn)
        layer.encoder_attn_text = FusedAttention(layer.encoder_attn_text)
        fuse_activation(layer, "fc1", "activation_fn", config.activation_function)
    for module in model.backbone.modules():
        if isinstance(module, SwinMLP):
            fuse_activation(module, "fc1", "activation_fn", config.backbone_config.hidden_act)
    replace_linears(network)


class BagSampling(nn.Module):
    """The function of transformers' `GroundingDinoMultiscaleDeformableAttention`, as weighted sums of table rows."""

    def __init__(self, attention: Any) -> None:
        """Share the parameters of `attention`."""
        super().__init__()
        self.heads: int = attention.n_heads
        self.levels: int = attention.n_levels
        self.sampling_offsets: nn.Module = attention.sampling_offsets
        self.attention_weights: nn.Module = attention.attention_weights
        self.value_proj: nn.Module = attention.value_proj
        self.output_proj: nn.Module = attention.output_proj

    def forward(
        self,
        hidden_states: Tensor,
        *,
        encoder_hidden_states: Tensor,
        reference_points: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        attention_mask: Tensor | None = None,
        position_embeddings: Tensor | None = None,
        **others: object,  # noqa: ARG002 - further arguments of the original
    ) -> tuple[Tensor, None]:
        """Return the (B, Q, C) samples of the queries, and None in place of attention weights.

        Args:
            hidden_states: (B, Q, C) queries.
            encoder_hidden_states: (B, S, C) positions of all feature maps.
            reference_points: (B, Q, L, 2 or 4) points or boxes (cx, cy, w, h) to sample around, relative to the maps.
            spatial_shapes: (L, 2) heights and widths of the feature maps.
            level_start_index: (L,) index of each map's first position.
            attention_mask: (B, S), False at positions that are padding.
            position_embeddings: (B, Q, C), added to the queries.
            others: further arguments of the original, not used.
        """
        queries = hidden_states if position_embeddings is None else hidden_states + position_embeddings
        values = self.value_proj(encoder_hidden_states)
        if attention_mask is not None:
            values = values.masked_fill(~attention_mask[..., None], 0.0)
        sampled = sample(
            values,
            self.sampling_offsets(queries),
            self.attention_weights(queries),
            reference_points,
            spatial_shapes,
            level_start_index,
            self.heads,
        )
        return self.output_proj(sampled), None


class FusedAttention(nn.Module):
    """The function of transformers' `GroundingDinoMultiheadAttention`, by `scaled_dot_product_attention`."""

    def __init__(self, attention: Any) -> None:
        """Share the parameters of `attention`."""
        super().__init__()
        self.heads: int = attention.num_attention_heads
        self.query: nn.Module = attention.query
        self.key: nn.Module = attention.key
        self.value: nn.Module = attention.value
        self.out_proj: nn.Module = attention.out_proj

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool = False,  # noqa: ARG002 - the original's signature
    ) -> tuple[Tensor, None]:
        """Return what (B, Q, C) queries receive from (B, T, C) keys, and None in place of attention weights.

        `attention_mask` is added to the scores.
        """
        projected = (self.query(queries), self.key(keys), self.value(values))
        q, k, v = (tensor.unflatten(2, (self.heads, -1)).transpose(1, 2) for tensor in projected)
        mask = None if attention_mask is None else attention_mask.to(q.dtype)
        context = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(context.transpose(1, 2).flatten(2)), None


class FoldedFusion(nn.Module):
    """The function of transformers' `GroundingDinoBiMultiHeadAttention`: image and text attend to each other."""

    def __init__(self, attention: Any) -> None:
        """Share the parameters of `attention`."""
        super().__init__()
        self.num_heads: int = attention.num_heads
        self.scale: float = attention.scale
        self.vision_proj: nn.Linear = attention.vision_proj
        self.text_proj: nn.Linear = attention.text_proj
        self.values_vision_proj: nn.Linear = attention.values_vision_proj
        self.values_text_proj: nn.Linear = attention.values_text_proj
        self.out_vision_proj: nn.Linear = attention.out_vision_proj
        self.out_text_proj: nn.Linear = attention.out_text_proj

    def forward(
        self,
        vision_features: Tensor,
        text_features: Tensor,
        vision_attention_mask: Tensor | None = None,
        text_attention_mask: Tensor | None = None,
    ) -> tuple[tuple[Tensor, None], tuple[Tensor, None]]:
        """Return what (B, S, C) positions and (B, T, C) tokens receive, each with None in place of attention weights.

        Masks are True at padding. The original clamps scores for half precision (50,000 below the largest score). This
        is left out, because it does not change a softmax.
        """
        weights_BSX, values_BXC, read = self.mix(
            vision_features, text_features, vision_attention_mask, text_attention_mask
        )
        return (weights_BSX @ values_BXC, None), (read, None)

    def mix(
        self,
        vision_features: Tensor,
        text_features: Tensor,
        vision_attention_mask: Tensor | None,
        text_attention_mask: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return weights (B, S, h T) and values (B, h T, C), whose product the positions receive, and the text's part.

        Arguments as `forward`.
        """
        heads, tokens = self.num_heads, text_features.shape[1]
        keys = self._heads_of(self.text_proj(text_features)) * self.scale
        folded = keys @ self.vision_proj.weight.unflatten(0, (heads, -1))
        offset = keys @ self.vision_proj.bias.view(heads, -1, 1)
        scores = torch.baddbmm(offset.flatten(1, 2), folded.flatten(1, 2), vision_features.transpose(1, 2))
        scores_BhTS = scores.unflatten(1, (heads, tokens))

        text_scores = scores_BhTS
        if vision_attention_mask is not None:
            text_scores = text_scores.masked_fill(vision_attention_mask[:, None, None, :], float("-inf"))
        means = text_scores.softmax(-1).flatten(1, 2) @ vision_features
        values = means.unflatten(1, (heads, tokens)) @ self.values_vision_proj.weight.unflatten(
            0, (heads, -1)
        ).transpose(1, 2)
        values = values.transpose(1, 2).flatten(2) + self.values_vision_proj.bias

        if text_attention_mask is not None:
            scores_BhTS = scores_BhTS.masked_fill(text_attention_mask[:, None, :, None], float("-inf"))
        weights = scores_BhTS.softmax(2).flatten(1, 2)
        text_values = self._heads_of(self.values_text_proj(text_features))
        folded_values = text_values @ self.out_vision_proj.weight.t().unflatten(0, (heads, -1))
        # the weights of each head sum to one, so a bias divided by the number of heads is added once in total
        folded_values = folded_values + self.out_vision_proj.bias / heads
        return weights.transpose(1, 2), folded_values.flatten(1, 2), self.out_text_proj(values)

    def _heads_of(self, tokens_BTD: Tensor) -> Tensor:
        """Return the channels split into heads: (B, T, h d) -> (B, h, T, d)."""
        return tokens_BTD.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
