"""Make a static HTML gallery of labels; see `python jobs/report.py --help`."""

from wsss_ray.config import ReportConfig
from wsss_ray.entry import run_job
from wsss_ray.report import run

if __name__ == "__main__":
    run_job(ReportConfig, run)
