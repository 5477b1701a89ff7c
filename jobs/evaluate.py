"""Judge labels against a ground truth; see `python jobs/evaluate.py --help`."""

from wsss_ray.config import EvaluateConfig
from wsss_ray.entry import run_job
from wsss_ray.evaluation import run

if __name__ == "__main__":
    run_job(EvaluateConfig, run)
