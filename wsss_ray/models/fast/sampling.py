"""Deformable sampling of Grounding DINO as weighted sums of table rows, for CPUs and in stock operators of torch.

The feature maps' values are rows of a table. Bilinear interpolation and attention weights together are weights of one
sum over rows, which `embedding_bag` computes in one pass. The original makes a grid, samples each level, stacks,
multiplies and adds.
"""

# ruff: noqa: N803, N806, PLR0917  shape suffixes: B images, S positions, C channels, h heads of d channels, Q queries, L levels, P points

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

SAMPLING_BYTES = {"cpu": 2**21, "cuda": 2**31}
"""Bytes of the indices and weights that are computed at once. CPU: few enough for the cache."""


def sample(
    values_BSC: Tensor,
    offsets_BQX: Tensor,
    weights_BQY: Tensor,
    reference_BQLX: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    heads: int,
) -> Tensor:
    """Return the samples (B, Q, C) of the queries, in float32.

    Args:
        values_BSC: values of all positions of all feature maps.
        offsets_BQX: offsets of the points, (h, L, P, 2) flattened: pixels, or eighths of a box.
        weights_BQY: attention scores of the points before the softmax, (h, L P) flattened.
        reference_BQLX: (B, Q, L, 2 or 4) points or boxes (cx, cy, w, h) to sample around, relative to the maps.
        spatial_shapes: (L, 2) heights and widths of the feature maps.
        level_start_index: (L,) index of each map's first position.
        heads: number of heads.
    """
    batch, positions, channels = values_BSC.shape
    count = offsets_BQX.shape[1]
    levels = (heads, len(spatial_shapes), weights_BQY.shape[2] // (heads * len(spatial_shapes)))
    table = values_BSC.float().view(-1, channels // heads)
    offsets_qhLP2 = offsets_BQX.float().view(-1, *levels, 2)
    weights_qhLP = weights_BQY.float().view(-1, heads, levels[1] * levels[2]).softmax(-1).view(-1, *levels)
    corners = _Corners(spatial_shapes, level_start_index, levels)
    centers, spreads = corners.centers(reference_BQLX.float().flatten(0, 1))
    sampled = torch.empty(batch * count, channels, device=values_BSC.device)
    step = max(1, SAMPLING_BYTES[table.device.type] // (weights_qhLP[0].numel() * 4 * 8))
    for start, stop, first_row in _spans(batch, count, step, positions * heads, table.device):
        piece = slice(start, stop)
        offsets = offsets_qhLP2[piece] if spreads is None else offsets_qhLP2[piece] * spreads[piece]
        bags, shares = corners.rows_of(offsets + centers[piece], weights_qhLP[piece], first_row)
        picked = functional.embedding_bag(bags, table, mode="sum", per_sample_weights=shares)
        sampled[piece] = picked.view(-1, channels)
    return sampled.view(batch, count, channels)


def _spans(
    batch: int, count: int, step: int, image_rows: int, device: torch.device
) -> Iterator[tuple[int, int, int | Tensor]]:
    """Yield pieces of the B Q queries: start, stop, and the row of the table at which the image of each begins.

    On the CPU a piece has queries of one image; on a GPU it has as many as memory allows, because launches cost time.
    """
    if device.type == "cpu":
        for image in range(batch):
            for start in range(image * count, (image + 1) * count, step):
                yield start, min(start + step, (image + 1) * count), image * image_rows
        return
    first_rows = torch.arange(batch, dtype=torch.int32, device=device).repeat_interleave(count) * image_rows
    for start in range(0, batch * count, step):
        stop = min(start + step, batch * count)
        yield start, stop, first_rows[start:stop, None, None, None]


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

    def rows_of(self, pixels_qhLP2: Tensor, weights_qhLP: Tensor, first_row: int | Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows (q h, 4 L P) int32 around the points, and their weights.

        Args:
            pixels_qhLP2: points in pixels of their maps.
            weights_qhLP: attention weights.
            first_row: row of the table at which the image begins; one for all queries, or (q, 1, 1, 1).
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
