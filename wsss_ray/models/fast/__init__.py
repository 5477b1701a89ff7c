"""Replacement kernels: faster layers with the results of the packages' own, but for rounding.

`kernels: stock` in the configuration of a detector or segmenter keeps the packages' own layers.
"""
