"""The lattice against the same lattice written by hand, and against exact Gaussian sums."""

from __future__ import annotations

import pytest
import torch
from lattice_by_hand import lattice_matrix

from wsss_ray.models.crf.permutohedral import PermutohedralLattice


@pytest.mark.parametrize(("points", "dimensions", "spread"), [(60, 1, 3.0), (80, 2, 2.0), (80, 3, 20.0), (60, 5, 1.0)])
def test_it_filters_as_the_lattice_of_the_paper_does(points: int, dimensions: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(dimensions)
    features = torch.randn(points, dimensions, generator=generator) * spread
    values = torch.rand(points, 4, generator=generator)
    found = PermutohedralLattice(features).filter(values)
    by_hand = torch.from_numpy(lattice_matrix(features.numpy())).float() @ values
    torch.testing.assert_close(found, by_hand, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dimensions", [2, 5])
def test_normalised_it_comes_near_the_exact_gaussian(dimensions: int) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(1500, dimensions, generator=generator) * 3
    values = (features[:, :1] > 1.5).float()
    exact = torch.exp(-0.5 * torch.cdist(features, features) ** 2)
    lattice = PermutohedralLattice(features)
    found = lattice.filter(values) / lattice.filter(torch.ones_like(values))
    difference = (found - exact @ values / exact.sum(1, keepdim=True)).abs()
    assert difference.max() < 0.1
    assert difference.mean() < 0.02


def test_far_points_hear_nothing_of_each_other_and_equal_ones_all() -> None:
    features = torch.tensor([[0.0, 0.0], [0.0, 0.0], [100.0, -50.0]])
    lattice = PermutohedralLattice(features)
    alone = lattice.filter(torch.tensor([[0.0], [0.0], [1.0]]))
    assert alone[:2].abs().max() == 0
    assert alone[2] > 0.1
    both = lattice.filter(torch.tensor([[1.0], [0.0], [0.0]]))
    assert both[0] == both[1] > 0.1


@pytest.mark.parametrize("scale", [3e4, 1e30, float("nan")])
def test_points_spread_over_too_many_cells_are_refused(scale: float) -> None:
    features = torch.cat([torch.zeros(1, 5), torch.full((1, 5), scale)])
    with pytest.raises(ValueError, match="larger widths"):
        PermutohedralLattice(features)


def test_its_vertices_are_those_around_the_points() -> None:
    assert PermutohedralLattice(torch.tensor([[0.3, 0.2]]))._splat_starts.numel() == 3
    corner = PermutohedralLattice(torch.zeros(1, 2))  # on a vertex; a quarter goes to each of two neighbours and back
    assert float(corner.filter(torch.ones(1, 1))) == pytest.approx((1 + 1 / 8) * 4 / 5)
