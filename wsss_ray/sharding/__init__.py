"""The shard job: it packs a VOC tree, COCO, or a folder of images with tags into Parquet image shards."""

from wsss_ray.sharding.job import run

__all__ = ["run"]
