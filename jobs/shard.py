"""Turn a VOC tree, COCO or a folder of images with tags into Parquet image shards."""

from wsss_ray import sharding
from wsss_ray.config import ShardConfig
from wsss_ray.entry import run_job

if __name__ == "__main__":
    run_job(ShardConfig, sharding.run)
