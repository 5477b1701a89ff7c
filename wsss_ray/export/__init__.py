"""The export job: labels in the forms that other tools read."""

from wsss_ray.export.job import run
from wsss_ray.export.summary import Summary

__all__ = ["Summary", "run"]
