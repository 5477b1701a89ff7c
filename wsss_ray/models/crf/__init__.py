"""DenseCRF: mean field inference on a permutohedral lattice."""
