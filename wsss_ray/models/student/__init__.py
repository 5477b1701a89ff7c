"""Segmentation networks that are trained on labels."""
