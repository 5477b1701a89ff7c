"""The labelling job."""

from wsss_ray.labelling.job import run

__all__ = ["run"]
