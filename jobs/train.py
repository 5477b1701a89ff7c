"""Train a segmentation network on labels; see `python jobs/train.py --help`."""

from wsss_ray.config import TrainConfig
from wsss_ray.entry import run_job
from wsss_ray.training import run

if __name__ == "__main__":
    run_job(TrainConfig, run)
