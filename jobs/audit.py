"""Rank the images of a labelling run that deserve a look; see `python jobs/audit.py --help`."""

from wsss_ray.audit import run
from wsss_ray.config import AuditConfig
from wsss_ray.entry import run_job

if __name__ == "__main__":
    run_job(AuditConfig, run)
