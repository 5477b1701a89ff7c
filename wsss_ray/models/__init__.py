"""Detectors, segmenters, fusion rules and students. These modules import neither Ray nor storage."""
