"""Replacement kernels for parts of the published networks."""
