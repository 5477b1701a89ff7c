"""Label image shards with Grounding DINO and SAM; see `python jobs/label.py --help`."""

from wsss_ray.config import LabelConfig
from wsss_ray.entry import run_job
from wsss_ray.labelling import run

if __name__ == "__main__":
    run_job(LabelConfig, run)
