"""Print the table of `docs/performance.md`: the time of GPUs for a data set, by arithmetic and memory traffic.

    python benchmarks/limits.py [--images 82081] [--segmenter vit_h]

It uses data sheets, the published share of their arithmetic and assumed prices (`wsss_ray/labelling/limits.py`), with
eight boxes per image and the precisions of the presets.
"""

from __future__ import annotations

import argparse

from wsss_ray.labelling.limits import ENCODER_GFLOP, table


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=82_081, help="default: COCO train2014")
    parser.add_argument("--segmenter", default="vit_h", choices=list(ENCODER_GFLOP))
    options = parser.parse_args()
    print(table(options.images, options.segmenter))


if __name__ == "__main__":
    main()
