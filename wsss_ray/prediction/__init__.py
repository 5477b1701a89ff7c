"""The prediction job."""

from wsss_ray.prediction.job import run
from wsss_ray.prediction.soft import probabilities_of, read_soft

__all__ = ["probabilities_of", "read_soft", "run"]
