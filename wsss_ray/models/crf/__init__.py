"""DenseCRF: a mean field on a permutohedral lattice."""
