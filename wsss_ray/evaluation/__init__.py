"""The evaluation job: labels against truth."""

from wsss_ray.evaluation.job import run
from wsss_ray.evaluation.result import ClassResult, Evaluation

__all__ = ["ClassResult", "Evaluation", "run"]
