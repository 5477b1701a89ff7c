"""Segment-anything as installed against the segmenter, same random weights and images: one table, ratios of one run.

    python benchmarks/segmenter.py [--models tiny vit_b] [--images 8] [--repeats 3] [--threads 1] [--json FILE]

Contenders are processes that take turns, each with its own allocator settings; seconds are the CPU's (user and system),
medians over the turns. The encoder's rows are one image. "join" is the work from features to label maps: images of
480 x 640 with 30 boxes each, the published decoder behind a small encoder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling import Sam

from wsss_ray.config import SegmenterConfig
from wsss_ray.models.device import Compute
from wsss_ray.models.fusion import fuse
from wsss_ray.models.results import Detections
from wsss_ray.models.sam_encoder import ImageEncoder, resize_longest_side
from wsss_ray.models.sam_loading import load_sam
from wsss_ray.models.segmenter import Segmenter
from wsss_ray.models.tiny_sam import TINY_SAM_CONFIG, build_tiny_sam

TUNED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
CONTENDERS = {
    "package, as installed": ("package", {}),
    "package, tuned allocator": ("package", TUNED),
    "ours": ("float32", {}),
    "ours, tuned allocator": ("float32", TUNED),
    "ours, bfloat16, tuned allocator": ("bfloat16", TUNED),
}
JOIN_CONFIG = TINY_SAM_CONFIG | {
    "image_size": 1024,
    "patch_size": 16,
    "embed_dim": 32,
    "num_heads": 2,
    "depth": 1,
    "global_attn_indexes": [],
    "window_size": 14,
    "prompt_embed_dim": 256,
    "decoder_mlp_dim": 2048,
    "decoder_num_heads": 8,
    "iou_head_hidden_dim": 256,
}
BOXES, SIZE = 30, (480, 640)


def write_weights(directory: Path, work: str) -> Path:
    """Random weights with embeddings of positions, which are zero as initialised."""
    directory.mkdir()
    torch.manual_seed(0)
    config = JOIN_CONFIG if work == "join" else TINY_SAM_CONFIG
    sam = sam_model_registry[work]() if work.startswith("vit") else build_tiny_sam(config)
    with torch.no_grad():
        for name, parameter in sam.named_parameters():
            if "rel_pos" in name or name.endswith("pos_embed"):
                parameter.normal_(0, 0.02)
            elif name.startswith("mask_decoder") and parameter.ndim > 1:
                parameter.mul_(1.5)
            elif name.startswith("prompt_encoder.point_embeddings"):
                parameter.mul_(3)
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.save(sam.state_dict(), directory / "weights.pth")
    return directory / "weights.pth"


def prepare(work: str, way: str, weights: Path, count: int) -> Callable[[], np.ndarray]:
    """The function to time; its result is compared with the package's."""
    model = work if work.startswith("vit") else "tiny"
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (count, 30, 40, 3), dtype=np.uint8)
    images = list(coarse.repeat(16, axis=1).repeat(16, axis=2))
    if work == "join":
        return prepare_join(way, weights, images, generator)
    sam = load_sam(model, weights)
    picture = resize_longest_side(images[0], sam.image_encoder.img_size)
    if way == "package":
        pixels = torch.from_numpy(picture).permute(2, 0, 1)[None]
        return lambda: encode_by_package(sam, pixels)
    encoder = ImageEncoder(sam, Compute(device=torch.device("cpu"), tier=way))  # type: ignore[arg-type]
    return lambda: encoder.encode([picture]).numpy()


def encode_by_package(sam: Sam, pixels: torch.Tensor) -> np.ndarray:
    """Features of one image."""
    with torch.inference_mode():
        features: torch.Tensor = sam.image_encoder(sam.preprocess(pixels))
        return features.numpy()


def prepare_join(
    way: str, weights: Path, images: list[np.ndarray], generator: np.random.Generator
) -> Callable[[], np.ndarray]:
    """Masks of all boxes, painted in query order: by the predictor image by image, or by ours."""
    height, width = SIZE
    corners = generator.random((len(images), BOXES, 2, 2)) * [width, height]
    boxes = list(np.concatenate([corners.min(2), corners.max(2)], axis=2).astype(np.float32))
    detections = Detections(
        boxes=boxes[0],
        scores=np.ones(BOXES, np.float32),
        class_ids=np.arange(1, BOXES + 1, dtype=np.int32),
        phrases=("thing",) * BOXES,
    )
    if way == "package":
        sam = load_sam("tiny", weights)

        def by_package() -> np.ndarray:
            labels = np.zeros((len(images), *SIZE), np.uint8)
            for label, image, image_boxes in zip(labels, images, boxes, strict=True):
                predictor = SamPredictor(sam)
                predictor.set_image(image)
                prompts = predictor.transform.apply_boxes_torch(torch.from_numpy(image_boxes), SIZE)
                masks, _, _ = predictor.predict_torch(None, None, prompts, multimask_output=False)
                for class_id, mask in enumerate(masks[:, 0].numpy(), start=1):
                    label[mask] = class_id
            return labels

        return by_package
    config = SegmenterConfig(model="tiny", device="cpu", precision=way)  # type: ignore[arg-type]
    segmenter = Segmenter(config, checkpoint=weights)

    def by_segmenter() -> np.ndarray:
        found = segmenter.segment(images, boxes)
        return np.stack(
            [fuse(detections, crops, *SIZE, paint="detection", background_id=0, dtype=np.uint8) for crops in found]
        )

    return by_segmenter


def work_for_turns(work: str, way: str, weights: Path, result: Path, count: int) -> None:
    """Time one call per line of standard input; answer with CPU seconds and peak memory over what was loaded."""
    call = prepare(work, way, weights, count)
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in sys.stdin:
        before = resource.getrusage(resource.RUSAGE_SELF)
        value = call()
        after = resource.getrusage(resource.RUSAGE_SELF)
        np.save(result, value)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(json.dumps([seconds, (after.ru_maxrss - loaded) / 1024]), flush=True)


def take_turns(work: str, names: list[str], *, count: int, repeats: int, threads: int) -> list[dict[str, Any]]:
    """One row for each contender; the first turn of each warms up and does not count."""
    with tempfile.TemporaryDirectory() as folder:
        weights = write_weights(Path(folder) / "weights", work)
        workers = []
        for number, name in enumerate(names):
            way, environment = CONTENDERS[name]
            result = str(Path(folder) / f"{number}.npy")
            command = [sys.executable, __file__, "--worker", work, way, str(weights), result, str(count)]
            variables = {key: value for key, value in os.environ.items() if key not in TUNED} | environment
            variables["OMP_NUM_THREADS"] = str(threads)
            workers.append(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables)
            )
        answers: list[list[tuple[float, float]]] = [[] for _ in workers]
        for _ in range(repeats + 1):
            for worker, answer in zip(workers, answers, strict=True):
                assert worker.stdin is not None
                assert worker.stdout is not None
                print("go", file=worker.stdin, flush=True)
                answer.append(tuple(json.loads(worker.stdout.readline())))
        for worker in workers:
            worker.communicate()
        values = [np.load(Path(folder) / f"{number}.npy") for number in range(len(names))]
    medians = [statistics.median(seconds for seconds, _ in answer[1:]) for answer in answers]
    return [
        {
            "work": work,
            "contender": name,
            "cpu_seconds": median,
            "times_faster": medians[0] / median,
            "peak_mib": max(peak for _, peak in answer),
            "difference": difference(work, values[0], value),
        }
        for name, median, answer, value in zip(names, medians, answers, values, strict=True)
    ]


def difference(work: str, expected: np.ndarray, value: np.ndarray) -> float:
    """Share of other pixels (join), or largest error relative to the largest feature."""
    if work == "join":
        return float((expected != value).mean())
    return float(np.abs(expected - value).max() / np.abs(expected).max())


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=["tiny", "vit_b"], choices=["tiny", "vit_b", "vit_l", "vit_h"])
    parser.add_argument("--images", type=int, default=8, help="images of the join")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work, way, weights, result, count = arguments.worker
        work_for_turns(work, way, Path(weights), Path(result), int(count))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, {arguments.threads} threads, {arguments.repeats} repeats")
    print(f"{'work':6} {'contender':32} {'CPU s':>8} {'faster':>7} {'peak MiB':>9} {'difference':>11}")
    rows = []
    settings = {"count": arguments.images, "repeats": arguments.repeats, "threads": arguments.threads}
    for work in [*arguments.models, "join"]:
        names = [name for name, (way, _) in CONTENDERS.items() if work != "join" or way != "bfloat16"]
        for row in take_turns(work, names, **settings):
            rows.append(row)
            print(
                f"{row['work']:6} {row['contender']:32} {row['cpu_seconds']:8.3f} {row['times_faster']:6.2f}x "
                f"{row['peak_mib']:9.0f} {row['difference']:11.1e}",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
