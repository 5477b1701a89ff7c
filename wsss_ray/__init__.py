"""Weakly-supervised semantic segmentation on Ray: image-level tags in, pixel labels out."""

__version__ = "0.1.0"
