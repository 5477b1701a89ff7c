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

SAMPLING_BYTES = {"cpu": 2**21, "cuda": 2**29}
"""Bytes of the indices and weights that are computed at once. CPU: few enough for the cache."""


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
        self.points: int = attention.n_points
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
        levels = (self.heads, len(spatial_shapes), self.points)
        table = values.float().view(-1, values.shape[-1] // self.heads)
        offsets_qhLP2 = self.sampling_offsets(queries).float().view(-1, *levels, 2)
        weights_qhLP = self.attention_weights(queries).float().view(-1, self.heads, levels[1] * levels[2])
        weights_qhLP = weights_qhLP.softmax(-1).view(-1, *levels)
        corners = _Corners(spatial_shapes, level_start_index, levels)
        centers, spreads = corners.centers(reference_points.float().flatten(0, 1))
        sampled = torch.empty(queries.shape[:2].numel(), values.shape[-1], device=values.device)
        step = max(1, SAMPLING_BYTES[table.device.type] // (weights_qhLP[0].numel() * 4 * 8))
        for image in range(len(queries)):
            first_row = image * values.shape[1] * self.heads
            for start in range(image * queries.shape[1], (image + 1) * queries.shape[1], step):
                piece = slice(start, min(start + step, (image + 1) * queries.shape[1]))
                offsets = offsets_qhLP2[piece] if spreads is None else offsets_qhLP2[piece] * spreads[piece]
                bags, shares = corners.rows_of(offsets + centers[piece], weights_qhLP[piece], first_row)
                picked = functional.embedding_bag(bags, table, mode="sum", per_sample_weights=shares)
                sampled[piece] = picked.view(-1, sampled.shape[1])
        return self.output_proj(sampled.view(*queries.shape[:2], -1)), None


class _Corners:
    """Finds the rows of a table (B S h, d) around points on the feature maps, and their bilinear weights."""

    def __init__(self, spatial_shapes: Tensor, level_start_index: Tensor, levels: tuple[int, int, int]) -> None:
        """Prepare the sizes of the feature maps.

        Args:
            spatial_shapes: (L, 2) heights and widths.
            level_start_index: (L,) index of each map's first position.
            levels: (h, L, P).
        """
        heads, device = levels[0], spatial_shapes.device
        self._heads, self._points = heads, levels[2]
        self._sides_L2 = spatial_shapes.flip(1).float()
        # of the same shape as the operand that it is compared with: broadcast comparisons are not vectorized
        self._last_hLP2 = (self._sides_L2[:, None] - 1).expand(*levels, 2).contiguous()
        self._line_L1 = spatial_shapes[:, 1, None].int() * heads
        heads_h11 = torch.arange(heads, dtype=torch.int32, device=device)[:, None, None]
        self._first_hL1 = level_start_index[:, None].int() * heads + heads_h11

    def centers(self, reference_qL: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the reference points in pixels, (q, 1, L, 1, 2), and the factor of the offsets, None for points.

        Offsets of points are in pixels, those of boxes in eighths of the box (with four points a level).

        Args:
            reference_qL: (q, L, 2 or 4) points or boxes, relative to the maps.
        """
        centers = (reference_qL[..., :2] * self._sides_L2 - 0.5)[:, None, :, None]
        if reference_qL.shape[-1] == 2:
            return centers, None
        spreads = reference_qL[..., 2:] * self._sides_L2 * (0.5 / self._points)
        return centers, spreads[:, None, :, None]

    def rows_of(self, pixels_qhLP2: Tensor, weights_qhLP: Tensor, first_row: int) -> tuple[Tensor, Tensor]:
        """Return the rows (q h, 4 L P) int32 around the points, and their weights.

        Args:
            pixels_qhLP2: points in pixels of their maps.
            weights_qhLP: attention weights.
            first_row: row of the table at which the image begins.
        """
        low = pixels_qhLP2.floor()
        high_share = pixels_qhLP2 - low
        low_share = 1 - high_share
        high = low + 1
        inside = [torch.minimum(side.clamp(min=0), self._last_hLP2) for side in (low, high)]
        # a corner outside the map has weight 0 and the row of the border
        low_share *= low == inside[0]
        high_share *= high == inside[1]
        shape = (*weights_qhLP.shape[:2], 4, *weights_qhLP.shape[2:])
        rows = torch.empty(shape, dtype=torch.int32, device=weights_qhLP.device)
        shares = torch.empty(shape, device=weights_qhLP.device)
        low, high = (side.int() for side in inside)
        columns = [side[..., 0] * self._heads + first_row for side in (low, high)]
        for line, (side, share) in enumerate(((low, low_share), (high, high_share))):
            lines = side[..., 1] * self._line_L1 + self._first_hL1
            weighted = share[..., 1] * weights_qhLP
            for column, column_share in enumerate((low_share, high_share)):
                torch.add(lines, columns[column], out=rows[:, :, 2 * line + column])
                torch.mul(weighted, column_share[..., 0], out=shares[:, :, 2 * line + column])
        return rows.flatten(2).flatten(0, 1), shares.flatten(2).flatten(0, 1)


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
        heads, (batch, tokens, _) = self.num_heads, text_features.shape
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
        seen = weights.transpose(1, 2) @ folded_values.flatten(1, 2)
        assert seen.shape[0] == batch
        return (seen, None), (self.out_text_proj(values), None)

    def _heads_of(self, tokens_BTD: Tensor) -> Tensor:
        """Return the channels split into heads: (B, T, h d) -> (B, h, T, d)."""
        return tokens_BTD.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
