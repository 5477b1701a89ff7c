"""The shard job: a VOC tree, COCO or a folder of images with tags becomes Parquet image shards."""

from wsss_ray.sharding.job import run

__all__ = ["run"]
