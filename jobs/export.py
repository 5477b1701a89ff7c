"""Write labels as VOC, COCO, YOLO-seg, Hugging Face or VOC test server files; see `python jobs/export.py --help`."""

from wsss_ray.config import ExportConfig
from wsss_ray.entry import run_job
from wsss_ray.export.job import run

if __name__ == "__main__":
    run_job(ExportConfig, run)
