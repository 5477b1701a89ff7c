"""The audit: which images of a run deserve a look, and where a human label may be wrong."""

from wsss_ray.audit.job import run

__all__ = ["run"]
