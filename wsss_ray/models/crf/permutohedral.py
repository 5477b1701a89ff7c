"""Gaussian filtering in many dimensions by the permutohedral lattice (Adams, Baek, Davis 2010).

The lattice divides the space of features into simplices. The values of a point are distributed over the vertices of its
simplex (splat), the vertices are blurred along the directions of the lattice, and the point interpolates the result
(slice). Time and memory grow with points times dimensions instead of with points squared. Every step is a weighted sum
of rows (`embedding_bag`), so there is no loop over points, and CPU and CUDA run the same code.

Shapes: N points, D dimensions, M lattice vertices, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

_BITS = 62
"""Bits of the integer code of a vertex."""
_LARGEST = 2.0**20
"""Largest coordinate for which float32 still resolves the position of a point in its simplex."""
_TOO_NARROW = (
    "the Gaussian is too narrow for points so far apart: they spread over more lattice cells than can be "
    "numbered. Give larger widths."
)


class PermutohedralLattice:
    """The lattice of a fixed set of points. It filters values on these points."""

    def __init__(self, features: Tensor) -> None:
        """Find the vertices around the points, and their neighbors.

        Args:
            features: (N, D) float32 positions in units of the Gaussian's standard deviation, on any device.

        Raises:
            ValueError: the positions spread over too many cells of the lattice, or are not finite.
        """
        points, dimensions = features.shape
        corners, ranks, weights = _enclosing_simplices(features)
        codes, strides = _vertex_codes(corners, ranks)
        vertices, vertex_of = torch.unique(codes.flatten(), return_inverse=True)
        self._slice_rows = vertex_of.view(points, dimensions + 1).int()
        self._slice_weights = weights
        order = torch.argsort(vertex_of, stable=True)
        self._splat_rows = (order // (dimensions + 1)).int()
        self._splat_weights = weights.flatten()[order]
        counts = torch.bincount(vertex_of, minlength=vertices.numel())
        self._splat_starts = (torch.cumsum(counts, 0) - counts).int()
        self._neighbors = [_neighbors(vertices, step) for step in _steps(strides)]
        self._blur_weights = features.new_full((vertices.numel(), 3), 0.5)
        self._blur_weights[:, 1] = 1.0
        self._gain = 1 / (1 + 2.0**-dimensions)

    def filter(self, values: Tensor) -> Tensor:
        """Return for each point the sum of all points' values, weighted by the Gaussian of their distance.

        Args:
            values: (N, C) float32.

        Returns:
            (N, C) float32; approximately `exp(-0.5 |f_i - f_j|^2) @ values`, up to a factor near one.
        """
        grid = embedding_bag(
            self._splat_rows,
            values,
            self._splat_starts,
            mode="sum",
            per_sample_weights=self._splat_weights,
        )
        absent = grid.new_zeros(1, grid.shape[1])  # value of a neighbor that is not a vertex
        for rows in self._neighbors:
            grid = embedding_bag(rows, torch.cat([grid, absent]), mode="sum", per_sample_weights=self._blur_weights)
        return self._gain * embedding_bag(self._slice_rows, grid, mode="sum", per_sample_weights=self._slice_weights)


def _enclosing_simplices(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the simplex around each point.

    Returns:
        (N, D+1) int64 coordinates of its vertex of remainder 0, (N, D+1) int64 ranks of the differences from it in
        descending order, and (N, D+1) float32 barycentric weights by remainder.
    """
    points, dimensions = features.shape
    size = dimensions + 1
    elevated = _elevate(features)
    if not bool(elevated.abs().amax() < _LARGEST):
        raise ValueError(_TOO_NARROW)
    rounded = torch.round(elevated / size)
    corners = (rounded * size).long()
    excess = rounded.long().sum(1, keepdim=True)  # the rounded point's distance from the plane of sum 0
    order = torch.argsort(elevated - corners, dim=1, descending=True, stable=True)
    ranks = torch.empty_like(order).scatter_(1, order, torch.arange(size, device=order.device).expand_as(order))
    ranks = ranks + excess
    shift = (ranks < 0).long() - (ranks > dimensions).long()
    ranks += shift * size
    corners += shift * size
    part = (elevated - corners) / size
    weights = features.new_zeros(points, size + 1)
    weights.scatter_add_(1, dimensions - ranks, part)
    weights.scatter_add_(1, dimensions - ranks + 1, -part)
    weights[:, 0] += 1 + weights[:, -1]
    return corners, ranks, weights[:, :-1].contiguous()


def _elevate(features: Tensor) -> Tensor:
    """Return (N, D) positions as (N, D+1) on the lattice's plane, scaled so that the blur has unit variance."""
    dimensions = features.shape[1]
    index = torch.arange(1, dimensions + 1, device=features.device, dtype=features.dtype)
    scaled = features * ((2 / 3) ** 0.5 * (dimensions + 1) / torch.sqrt(index * (index + 1)))
    above = torch.flip(torch.cumsum(torch.flip(scaled, [1]), 1), [1])  # sums from each dimension to the last
    behind = torch.cat([above[:, 1:], torch.zeros_like(above[:, :1])], 1)
    return torch.cat([above[:, :1], behind - index * scaled], 1)


def _vertex_codes(corners: Tensor, ranks: Tensor) -> tuple[Tensor, list[int]]:
    """Encode each vertex as one integer, so that a step along the lattice is always the same difference.

    Returns:
        (N, D+1) int64 codes by remainder, and D strides: the difference of codes for a step along each coordinate.
    """
    size = corners.shape[1]
    low = (corners.amin(0) - 2 * size).tolist()
    spans = [high - small + 1 for high, small in zip((corners.amax(0) + 2 * size).tolist(), low, strict=True)]
    strides = [1]
    for span in spans[: size - 2]:
        strides.append(strides[-1] * span)
    if strides[-1] * spans[size - 2] >= 2**_BITS:
        raise ValueError(_TOO_NARROW)
    remainders = torch.arange(size, device=corners.device)
    codes = torch.zeros_like(corners)
    for k, stride in enumerate(strides):  # the last coordinate follows from the others: they sum to 0
        coordinate = corners[:, k : k + 1] - low[k] + remainders - size * (ranks[:, k : k + 1] + remainders >= size)
        codes += coordinate * stride
    return codes, strides


def _steps(strides: list[int]) -> list[int]:
    """Return the difference of codes for a step along each of the D+1 directions."""
    size = len(strides) + 1
    return [sum(strides) - size * stride for stride in strides] + [sum(strides)]


def _neighbors(vertices: Tensor, step: int) -> Tensor:
    """Return the rows (M, 3) int32 of the previous vertex, the vertex and the next one; M where there is none."""
    count = vertices.numel()
    rows = [torch.arange(count, device=vertices.device)]
    for wanted in (vertices - step, vertices + step):
        index = torch.searchsorted(vertices, wanted).clamp_(max=count - 1)
        rows.append(torch.where(vertices[index] == wanted, index, count))
    return torch.stack([rows[1], rows[0], rows[2]], 1).int()
