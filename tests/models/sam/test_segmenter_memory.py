"""The segmenter's peak memory, measured in separate processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import random_models

REAL_DECODER = random_models.SAM_CONFIG | {
    "image_size": 1024,
    "patch_size": 16,
    "prompt_embed_dim": 256,
    "decoder_mlp_dim": 2048,
    "decoder_num_heads": 8,
    "iou_head_hidden_dim": 256,
    "window_size": 14,
}
"""The published decoder behind a small encoder."""
SCRIPT = """
import resource, sys
import numpy as np
from wsss_ray.config import SegmenterConfig
from wsss_ray.models.sam.boxes import SamBoxes
weights, height, width, count = sys.argv[1], *map(int, sys.argv[2:])
segmenter = SamBoxes(SegmenterConfig(model="tiny", checkpoint=weights, device="cpu"))
image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
boxes = (np.random.default_rng(1).random((count, 4)) * [width, height, width, height]).astype(np.float32)
for some in (boxes[:1], boxes):
    pixels = sum(int(crop.mask.sum()) for _, crop in segmenter.masks(segmenter.prepare([image], [some])))
    print([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, pixels])
"""


@pytest.mark.parametrize(
    ("config", "height", "width", "count"),
    [
        (random_models.SAM_CONFIG, 480, 640, 900),
        (REAL_DECODER, 480, 640, 12),  # 20 to 30 MiB a box when decoded together
        (random_models.SAM_CONFIG, 4000, 5000, 12),  # 20 MB a mask, 80 MB its logits
    ],
    ids=["900 boxes", "published decoder", "20 megapixels"],
)
def test_peak_memory_does_not_grow_with_the_boxes(
    tmp_path: Path, config: dict, height: int, width: int, count: int
) -> None:
    weights = random_models.write_sam(tmp_path, seed=1, config=config)
    command = [sys.executable, "-c", SCRIPT, str(weights), str(height), str(width), str(count)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    (one, _), (many, pixels) = map(json.loads, output.splitlines())
    assert pixels > 0.05 * count * height * width, "masks are empty"
    assert many - one < 150, "MiB over what one box takes"
