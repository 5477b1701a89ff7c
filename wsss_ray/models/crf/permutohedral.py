"""Gaussian filtering in many dimensions by the permutohedral lattice (Adams, Baek, Davis 2010).

The lattice divides the space of features into simplices. A point spreads its values over the vertices of its simplex
(splat), the vertices blur along the directions of the lattice, and the point gathers again (slice): time and memory
grow with points times dimensions instead of with points squared. Everything here is a weighted sum of rows
(`embedding_bag`), so that no loop runs over points, and CPU and CUDA run the same code.

Shapes: N points, D dimensions, M lattice vertices, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

_BITS = 62
"""Bits of the integer that names a vertex."""
_LARGEST = 2.0**20
"""Farther from the origin float32 no longer tells where in its simplex a point lies."""
_TOO_NARROW = (
    "the Gaussian is too narrow for points that lie so far apart: they spread over more lattice cells than can be told "
    "apart. Give larger widths."
)


class PermutohedralLattice:
    """The lattice of fixed points, ready to filter any values on them."""

    def __init__(self, features: Tensor) -> None:
        """Find the vertices around the points, and their neighbours.

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
        self._neighbours = [_neighbours(vertices, step) for step in _steps(strides)]
        self._blur_weights = torch.tensor([0.5, 1.0, 0.5], device=features.device).repeat(vertices.numel(), 1)
        self._gain = 1 / (1 + 2.0**-dimensions)

    @property
    def vertices(self) -> int:
        """Number M of lattice vertices."""
        return self._splat_starts.numel()

    def filter(self, values: Tensor) -> Tensor:
        """Sum the values of all points, each weighted by the Gaussian of its distance.

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
        nothing = grid.new_zeros(1, grid.shape[1])  # what a neighbour that is no vertex holds
        for rows in self._neighbours:
            grid = embedding_bag(rows, torch.cat([grid, nothing]), mode="sum", per_sample_weights=self._blur_weights)
        return self._gain * embedding_bag(self._slice_rows, grid, mode="sum", per_sample_weights=self._slice_weights)


def _enclosing_simplices(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The simplex around each point.

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
    excess = rounded.long().sum(1, keepdim=True)  # how far the rounding left the plane where coordinates sum to 0
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
    """(N, D) positions to (N, D+1) on the lattice's plane, scaled so that the blur has unit variance."""
    dimensions = features.shape[1]
    index = torch.arange(1, dimensions + 1, device=features.device, dtype=features.dtype)
    scaled = features * ((2 / 3) ** 0.5 * (dimensions + 1) / torch.sqrt(index * (index + 1)))
    above = torch.flip(torch.cumsum(torch.flip(scaled, [1]), 1), [1])  # sums from each dimension to the last
    behind = torch.cat([above[:, 1:], torch.zeros_like(above[:, :1])], 1)
    return torch.cat([above[:, :1], behind - index * scaled], 1)


def _vertex_codes(corners: Tensor, ranks: Tensor) -> tuple[Tensor, list[int]]:
    """Name each vertex by one integer, in which a step along the lattice is always the same difference.

    Returns:
        (N, D+1) int64 codes by remainder, and D strides: what one step of each coordinate adds to a code.
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
    """What a step along each of the D+1 directions adds to a vertex code."""
    size = len(strides) + 1
    return [sum(strides) - size * stride for stride in strides] + [sum(strides)]


def _neighbours(vertices: Tensor, step: int) -> Tensor:
    """(M, 3) int32 rows of the vertex before, the vertex, and the one behind; M where there is none."""
    count = vertices.numel()
    rows = [torch.arange(count, device=vertices.device)]
    for wanted in (vertices - step, vertices + step):
        place = torch.searchsorted(vertices, wanted).clamp_(max=count - 1)
        rows.append(torch.where(vertices[place] == wanted, place, count))
    return torch.stack([rows[1], rows[0], rows[2]], 1).int()
