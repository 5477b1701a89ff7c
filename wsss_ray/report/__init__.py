"""The report: a static gallery of labels."""

from wsss_ray.report.job import run

__all__ = ["run"]
