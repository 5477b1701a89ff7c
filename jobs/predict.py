"""Predict labels of image shards with a trained student; see `python jobs/predict.py --help`."""

from wsss_ray.config import PredictConfig
from wsss_ray.entry import run_job
from wsss_ray.prediction import run

if __name__ == "__main__":
    run_job(PredictConfig, run)
