"""Run all jobs from images to a judged student; see `python jobs/pipeline.py --help`."""

from wsss_ray.config.pipeline import PipelineConfig
from wsss_ray.entry import run_job
from wsss_ray.pipeline import run

if __name__ == "__main__":
    run_job(PipelineConfig, run)
