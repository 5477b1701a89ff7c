"""The pipeline: all jobs from images to an evaluated student, one after the other."""

from wsss_ray.pipeline.job import run

__all__ = ["run"]
