"""SAM's mask decoder for the boxes of many images at once: the package's function with fewer operations.

A box prompt has seven tokens and an image has thousands of positions. So the cross attentions fold their projections
into the tokens and never project the positions. With W_q, W_k, W_v, W_o the projections of one head, x a position, and
q, k, v those of a token:

- token to image: q . (W_k x + b_k) = (W_k^T q) . x + constant. A softmax over positions ignores the constant. The mean
  of the values W_v x + b_v is W_v (mean of x) + b_v.
- image to token: (W_q x + b_q) . k = x . (W_q^T k) + b_q . k, and W_o (sum of w_t v_t) = sum of w_t (W_o v_t).

The transposed convolutions of the upscaling have a stride equal to their kernel. Each is one matrix product per
position, and the pixels are reordered once at the end. Only the first of the four masks is computed. All of this is
exact but for rounding (float32: 1e-6 of the logits' range) and takes 40 % of the package's multiplications.

Shapes: B images, n boxes, T tokens (predicted IoU, four masks, two corners), P positions (g x g), C channels,
h heads of d channels each.
"""

# ruff: noqa: N803  shape suffixes

from __future__ import annotations

import math

import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.transformer import Attention
from torch import Tensor, nn
from torch.nn import functional

IOU_AND_FIRST_MASK = 2
"""Number of leading tokens that the single-mask output needs: that of the predicted IoU and of the first mask."""


class BoxDecoder:
    """Masks of box prompts of several images, at low resolution.

    Keeps no state between calls. Runs in the dtype of the weights (float32).
    """

    def __init__(self, sam: Sam) -> None:
        """Take the prompt encoder and the mask decoder of `sam`, whose weights must be final and on the device."""
        decoder = sam.mask_decoder
        self._prompt_encoder = sam.prompt_encoder
        self._transformer = decoder.transformer
        self._iou_head = decoder.iou_prediction_head
        self._mask_head = decoder.output_hypernetworks_mlps[0]
        self._grid: tuple[int, int] = sam.prompt_encoder.image_embedding_size
        self._output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        self._position_PC = sam.prompt_encoder.get_dense_pe().flatten(2)[0].t().contiguous()
        first, norm, _, second, _ = decoder.output_upscaling
        self._first_upscaling = _position_wise(first)
        self._second_upscaling = _position_wise(second)
        self._upscaling_norm = norm

    def tokens_of_images(self, features: Tensor) -> Tensor:
        """Return the tokens (B, P, C) of images without a mask prompt from their features (B, C, g, g)."""
        without_mask = self._prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        return (features + without_mask).flatten(2).transpose(1, 2).contiguous()

    def decode(self, images_BPC: Tensor, image_of_box: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mask logits (n, 4 g, 4 g), positive inside, and the predicted IoUs (n,).

        Args:
            images_BPC: from `tokens_of_images`.
            image_of_box: (n,) int64 indices into B.
            boxes: (n, 4) float32 XYXY in pixels of the network's input.
        """
        corners, _ = self._prompt_encoder(points=None, boxes=boxes, masks=None)
        tokens = torch.cat([self._output_tokens.expand(len(boxes), -1, -1), corners], dim=1)
        outputs, positions = self._attend(tokens, images_BPC[image_of_box])
        logits = self._upscale(positions, self._mask_head(outputs[:, 1]))
        return logits, self._iou_head(outputs[:, 0])[:, 0]

    def _attend(self, tokens_nTC: Tensor, keys_nPC: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two output tokens (n, 2, C) and the positions (n, P, C), as TwoWayTransformer.forward."""
        queries, keys = tokens_nTC, keys_nPC
        for layer in self._transformer.layers:
            if layer.skip_first_layer_pe:
                queries = layer.self_attn(q=queries, k=queries, v=queries)
            else:
                located_queries = queries + tokens_nTC
                queries = queries + layer.self_attn(q=located_queries, k=located_queries, v=queries)
            queries = layer.norm1(queries)
            located = keys + self._position_PC
            attended = _tokens_to_image(layer.cross_attn_token_to_image, queries + tokens_nTC, located, keys)
            queries = layer.norm2(queries + attended)
            queries = layer.norm3(queries + layer.mlp(queries))
            keys = _image_to_tokens(layer.cross_attn_image_to_token, located, queries + tokens_nTC, queries, keys)
            keys = layer.norm4(keys)
        outputs, output_tokens = queries[:, :IOU_AND_FIRST_MASK], tokens_nTC[:, :IOU_AND_FIRST_MASK]
        attention = self._transformer.final_attn_token_to_image
        attended = _tokens_to_image(attention, outputs + output_tokens, keys + self._position_PC, keys)
        return self._transformer.norm_final_attn(outputs + attended), keys

    def _upscale(self, positions_nPC: Tensor, mask_weights: Tensor) -> Tensor:
        """Return the logits (n, 4 g, 4 g): positions upscaled fourfold, times the mask's weights (n, C / 8)."""
        count, positions = positions_nPC.shape[:2]
        norm = self._upscaling_norm
        fine = functional.linear(positions_nPC, *self._first_upscaling).unflatten(2, (4, -1))
        fine = functional.gelu(functional.layer_norm(fine, norm.weight.shape, norm.weight, norm.bias, norm.eps))
        finest = functional.gelu(functional.linear(fine, *self._second_upscaling))
        logits = finest.view(count, positions * 16, -1) @ mask_weights[:, :, None]
        # axes: row and column of the grid, then of the 2 x 2 block of the first and of the second upscaling
        rows, columns = self._grid
        blocks = logits.view(count, rows, columns, 2, 2, 2, 2)
        return blocks.permute(0, 1, 3, 5, 2, 4, 6).reshape(count, 4 * rows, 4 * columns)


def _position_wise(upscaling: nn.ConvTranspose2d) -> tuple[Tensor, Tensor]:
    """Return a 2 x 2 transposed convolution of stride 2 as weight and bias of a linear layer with 4 x channels."""
    assert upscaling.kernel_size == upscaling.stride == (2, 2)
    assert upscaling.bias is not None
    weight = upscaling.weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous()
    return weight, upscaling.bias.repeat(4)


def _tokens_to_image(attention: Attention, queries_nTC: Tensor, located_nPC: Tensor, keys_nPC: Tensor) -> Tensor:
    """Return what tokens (n, T, C) receive from the positions: keys have the position encoding, values do not."""
    heads = attention.num_heads
    queries = _heads_of(attention.q_proj(queries_nTC), heads)
    folded = queries @ attention.k_proj.weight.unflatten(0, (heads, -1)) / math.sqrt(queries.shape[-1])
    weights = (folded.flatten(1, 2) @ located_nPC.transpose(1, 2)).softmax(dim=-1)
    means = (weights @ keys_nPC).unflatten(1, (heads, -1))
    values = means @ attention.v_proj.weight.unflatten(0, (heads, -1)).transpose(1, 2)
    values = values.transpose(1, 2).flatten(2) + attention.v_proj.bias
    return attention.out_proj(values)


def _image_to_tokens(
    attention: Attention,
    located_nPC: Tensor,
    queries_nTC: Tensor,
    values_nTC: Tensor,
    keys_nPC: Tensor,
) -> Tensor:
    """Return `keys_nPC` plus what the positions receive from the tokens."""
    heads = attention.num_heads
    queries = _heads_of(attention.k_proj(queries_nTC), heads)
    queries = queries / math.sqrt(queries.shape[-1])
    folded = queries @ attention.q_proj.weight.unflatten(0, (heads, -1))
    offset = queries @ attention.q_proj.bias.view(heads, -1, 1)
    scores = torch.baddbmm(offset.flatten(1, 2), folded.flatten(1, 2), located_nPC.transpose(1, 2))
    weights = scores.unflatten(1, (heads, -1)).softmax(dim=2).flatten(1, 2)
    values = _heads_of(attention.v_proj(values_nTC), heads)
    folded_values = values @ attention.out_proj.weight.t().unflatten(0, (heads, -1))
    # the weights of each head sum to one, so a bias divided by the number of heads is added once in total
    folded_values = folded_values + attention.out_proj.bias / heads
    return torch.baddbmm(keys_nPC, weights.transpose(1, 2), folded_values.flatten(1, 2))


def _heads_of(tokens_nTD: Tensor, heads: int) -> Tensor:
    """Return the channels split into heads: (n, T, h d) -> (n, h, T, d)."""
    return tokens_nTD.unflatten(2, (heads, -1)).transpose(1, 2)
