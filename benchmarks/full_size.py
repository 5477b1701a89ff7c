"""Run SAM ViT-H and Grounding DINO Swin-T at full size, with random weights, through `wsss-ray label`.

Pretrained weights are not part of the project; this shows that models of full size load, run and write labels through
the same command, and how long two photos take. It needs about 12 GB of memory and 4 GB of disk.

    python benchmarks/full_size.py --photos DIR [--precision bfloat16] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import machine, write_json
from PIL import Image
from random_weights import write_detector, write_sam

from wsss_ray import Labeller
from wsss_ray.config import DetectorConfig, LabellerConfig

ROOT = Path(__file__).resolve().parent.parent
BOXES_PER_PHOTO = 8


def threshold_for(directory: Path, photos: list[Path], tags: list[str]) -> float:
    """Return the score above which the random detector keeps about BOXES_PER_PHOTO boxes per photo."""
    config = DetectorConfig(model=str(directory), box_threshold=0.0)
    images = [np.array(Image.open(path).convert("RGB")) for path in photos]
    labels = Labeller(LabellerConfig(classes="voc", detector=config))
    found = labels.detector.detect(images, [tags] * len(images))
    scores = np.sort(np.concatenate([detections.scores for detections in found]))
    return float(scores[-1 - BOXES_PER_PHOTO * len(photos)])


def run(command: list[str]) -> float:
    """Return the seconds of a job, which must succeed."""
    start = time.monotonic()
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
    return time.monotonic() - start


def main() -> None:
    """Write the weights, shard two photos, label them, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of JPEGs, of which two are used; default: two drawn scenes")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    tags = ["dog", "person"]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        chosen = root / "photos"
        chosen.mkdir()
        if options.photos is None:
            run(
                [
                    "-m",
                    "wsss_ray.demo.scenes",
                    "--split",
                    "validation",
                    "--count",
                    "2",
                    "--output",
                    str(root / "scenes"),
                ]
            )
            options.photos = root / "scenes" / "images"
        for path in sorted(options.photos.glob("*.jpg"))[:2]:
            shutil.copy(path, chosen)
        photos = sorted(chosen.iterdir())
        write_detector(root / "detector")
        weights = write_sam(root / "sam", "vit_h")
        threshold = threshold_for(root / "detector", photos, tags)
        source = ["--source", "folder", "--classes", "voc", "--tags-for-all", *tags]
        run(["jobs/shard.py", *source, "--input", str(chosen), "--output", str(root / "shards")])
        models = [
            *("--detector.model", str(root / "detector"), "--detector.box-threshold", str(threshold)),
            *("--segmenter.model", "vit_h", "--segmenter.checkpoint", str(weights)),
            *("--detector.precision", options.precision, "--segmenter.precision", options.precision),
        ]
        paths = ["--input", str(root / "shards"), "--output", str(root / "run")]
        seconds = run(["jobs/label.py", *models, *paths, "--ray.actors", "1", "--png"])
        summary = json.loads((root / "run" / "summary.json").read_text())
        parts = summary["session"]["stage_seconds"]
        head = machine(1)
        print(f"\n{head}\nSAM ViT-H and Grounding DINO Swin-T, random weights, {options.precision}, one actor")
        print(f"{'images':<24}{summary['images']}\n{'boxes':<24}{summary['boxes']}\n{'job, seconds':<24}{seconds:.1f}")
        for part in ("decode", "detect", "segment", "encode", "write"):
            print(f"{part + ', s per image':<24}{parts.get(part, 0.0) / summary['images']:.2f}")
        row = {"precision": options.precision, "images": summary["images"], "seconds": seconds, "stage_seconds": parts}
        write_json(options.json, [row], machine=head)


if __name__ == "__main__":
    main()
