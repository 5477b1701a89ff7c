"""The table of `docs/performance.md`: what GPUs need for a data set, by arithmetic and memory traffic.

    python benchmarks/limits.py [--images 82081] [--segmenter vit_h]

By data sheets, the published share of their arithmetic and assumed prices (`wsss_ray/labelling/limits.py`); eight boxes
an image, the presets' precisions.
"""

from __future__ import annotations

import argparse

from wsss_ray.labelling.limits import ENCODER_GFLOP, table


def main() -> None:
    """Print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=82_081, help="unset: COCO train2014")
    parser.add_argument("--segmenter", default="vit_h", choices=list(ENCODER_GFLOP))
    options = parser.parse_args()
    print(table(options.images, options.segmenter))


if __name__ == "__main__":
    main()
