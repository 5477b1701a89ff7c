"""Run the embedded demo: scenes, shards, labels, evaluation; see `python jobs/demo.py --help`."""

from wsss_ray.config import DemoConfig
from wsss_ray.demo.run import run
from wsss_ray.entry import run_job

if __name__ == "__main__":
    run_job(DemoConfig, run)
