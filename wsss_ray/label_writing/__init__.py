"""What the jobs that write label files share: one file per unit, resumed, retried, counted and shown the same way."""

from wsss_ray.label_writing.job import LabelJob
from wsss_ray.label_writing.sink import LabelSink

__all__ = ["LabelJob", "LabelSink"]
