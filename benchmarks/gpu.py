"""Measure this package on a GPU: correctness against the CPU, speed, memory, and the end of a lost device.

    PYTHONPATH=. python benchmarks/gpu.py --json gpu.json [--parts correctness encoder ...] [--small]

Six parts, under 8 minutes on one H200. The JSON file is written after each part, and a part that fails leaves its
error there and does not stop the others. Ray is not needed, and neither are weights: full-size networks have random
ones, the demo's models their own. `--small` runs all of it in small on the CPU too, as the tests do.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import io
import json
import logging
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from gpu_correctness import Setup, correctness, milliseconds, peak_memory, synchronize
from measuring import random_boxes, random_photo
from PIL import Image
from random_weights import write_detector, write_sam
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from wsss_ray import ClassSet, Labeller
from wsss_ray.config import DetectorConfig, LabelConfig, SegmenterConfig
from wsss_ray.demo.scenes import draw_scene, split_seeds
from wsss_ray.engine.meter import Meter
from wsss_ray.engine.stage import CALLS_PER_ACTOR
from wsss_ray.labelling.plan import GPU_UNITS
from wsss_ray.labelling.stages import LabelStage
from wsss_ray.models.cost.counted import counted
from wsss_ray.models.cost.gpus import find_gpu
from wsss_ray.models.detector.network import GroundingDino
from wsss_ray.models.device import resolve_compute
from wsss_ray.models.fast import self_check
from wsss_ray.models.sam.encoder import ImageEncoder
from wsss_ray.models.sam.loading import load_sam

SIZES = [(480, 640), (427, 640), (640, 480), (375, 500), (640, 427), (500, 375), (333, 500), (612, 612)]
"""Height and width of COCO's most frequent sizes."""
TAGS = ["person", "dog", "chair", "bottle"]


# Part 2


def attention(setup: Setup) -> dict[str, Any]:
    """Time each backend of the stock attention on the networks' shapes, and the first call of new shapes."""
    dtype = torch.bfloat16 if setup.half == "bfloat16" else torch.float16
    batch = 1 if setup.small else 8
    shapes = {
        "sam windows, 196 keys": (25 * batch, 16, 196, 80),
        "sam windows, 200 keys": (25 * batch, 16, 200, 80),
        "swin windows": (64 * batch, 3, 49, 32),
    }
    if not setup.small:
        shapes["sam global"] = (1, 16, 4096, 80)
    backends = {
        "flash": SDPBackend.FLASH_ATTENTION,
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
        "cudnn": SDPBackend.CUDNN_ATTENTION,
        "math": SDPBackend.MATH,
    }
    found: dict[str, Any] = {}
    for name, (rows, heads, keys, width) in shapes.items():
        query = torch.randn(rows, heads, keys, width, device=setup.device, dtype=dtype)
        bias = torch.randn(rows, heads, keys, keys, device=setup.device, dtype=dtype)
        for backend, choice in backends.items():
            for mask in (None, bias):
                label = f"{name}, {backend}, {'bias' if mask is not None else 'no bias'}"
                try:
                    with sdpa_kernel(choice), torch.inference_mode(), warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        found[label] = milliseconds(
                            setup,
                            lambda query=query, mask=mask: functional.scaled_dot_product_attention(
                                query, query, query, attn_mask=mask
                            ),
                        )
                except RuntimeError as error:
                    found[label] = " ".join(str(error).split())[:120]
    return {"milliseconds": found, "first_calls_ms": first_calls(setup, dtype)}


def first_calls(setup: Setup, dtype: torch.dtype) -> dict[str, float]:
    """Return the milliseconds of the first and of the second call of new shapes, in one and in three threads."""

    def call(keys: int) -> float:
        query = torch.randn(16, 16, keys, 80, device=setup.device, dtype=dtype)
        synchronize(setup)
        started = time.perf_counter()
        with torch.inference_mode():
            functional.scaled_dot_product_attention(query, query, query)
        synchronize(setup)
        return (time.perf_counter() - started) * 1000

    fresh, again = call(208), call(208)
    with ThreadPoolExecutor(3) as pool:
        threads = list(pool.map(call, (216, 224, 232)))
    return {"first": fresh, "second": again, "first, three threads": max(threads)}


# Parts 3 and 4


def encoder(setup: Setup) -> dict[str, Any]:
    """Time SAM's encoder: the package's own and this one, by precision and batch."""
    model = "small" if setup.small else "vit_h"
    checkpoint = write_sam(setup.folder / "sam", model)
    found = {}
    contenders = [("stock", "float32"), ("stock", setup.half), ("auto", setup.half)]
    for kernels, tier in contenders if not setup.small else contenders[::2]:
        compute = resolve_compute(setup.device, tier)
        sam = load_sam("tiny" if setup.small else model, checkpoint).to(setup.device)
        network = ImageEncoder(sam, compute, kernels=kernels)  # type: ignore[arg-type]
        for batch in (1,) if setup.small else (1, 8, 16):
            inputs = torch.randn(batch, 3, network.side, network.side, device=setup.device)
            row: dict[str, Any] = {}
            with peak_memory(setup, row), compute.running():
                row["ms_per_image"] = milliseconds(setup, functools.partial(network.features_of, inputs), runs=5)
            row["ms_per_image"] /= batch
            if kernels == "auto":
                row["ms_counted"] = counted_ms(model, tier)
            found[f"{model} {kernels} {tier} x {batch}"] = row
    return found


def detector(setup: Setup) -> dict[str, Any]:
    """Time Grounding DINO: transformers' own layers and these, by batch, and a stream of many sizes."""
    if setup.small:
        config = DetectorConfig(model="demo", device=setup.device)
        classes, tags = ClassSet.load("demo"), ["cat", "umbrella"]
    else:
        write_detector(setup.folder / "dino")
        config = DetectorConfig(model=str(setup.folder / "dino"), device=setup.device)
        classes, tags = ClassSet.load("voc"), TAGS
    found = {}
    for kernels, tier in [("stock", "float32"), ("auto", setup.half)]:
        batches = (1,) if setup.small else (1, 2, 16)
        changed = dataclasses.replace(config, kernels=kernels, precision=tier, batch_size=max(batches))
        network = GroundingDino(changed, classes)
        for batch in batches:
            images = [random_photo(np.random.default_rng(0))] * batch
            row: dict[str, Any] = {}
            with peak_memory(setup, row):
                taken = milliseconds(setup, functools.partial(network.detect, images, [tags] * batch), runs=5)
            row["ms_per_image"] = taken / batch
            if kernels == "auto":
                row["ms_counted"] = counted_ms("swin-t", tier)
            found[f"{kernels} {tier} x {batch}"] = row
        sizes = [(480 + 8 * (index % 8), 640 - 8 * (index // 8)) for index in range(2 if setup.small else 64)]
        stream = [random_photo(np.random.default_rng(0), size) for size in sizes]
        started = time.perf_counter()
        network.detect(stream, [tags] * len(stream))
        synchronize(setup)
        found[f"{kernels} {tier}, stream of {len(stream)} sizes"] = {
            "ms_per_image": (time.perf_counter() - started) * 1000 / len(stream)
        }
    return found


# Part 5


def counted_ms(part: str, precision: str) -> float | None:
    """Return the estimate of `roofline.py` for an image on this GPU; None where it has none."""
    gpu = find_gpu(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    entry = counted().get((part, precision))
    return entry.milliseconds[gpu.name] if gpu and entry else None


def label_stage(setup: Setup) -> dict[str, Any]:
    """Run the label stage in an actor's threads over mixed JPEGs: images/s, and the share that its device works."""
    config = stage_config(setup)
    stage = LabelStage(config, ClassSet.load(config.classes), "ignore")
    units = [mixed_rows(setup, first) for first in range(2 if setup.small else 12)]
    meters = [Meter() for _ in units]
    stage(units[0], Meter())
    if setup.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    with ThreadPoolExecutor(GPU_UNITS if setup.device == "cuda" else CALLS_PER_ACTOR) as pool:
        rows = list(pool.map(stage, units, meters))
    wall = time.perf_counter() - started
    images = sum(table.num_rows for table in rows)
    parts: dict[str, float] = {}
    for meter in meters:
        for name, value in meter.seconds.items():
            parts[name] = parts.get(name, 0.0) + value
    busy = parts.get("detect", 0.0) + parts.get("segment", 0.0)
    return {
        "images": images,
        "images_per_second": images / wall,
        "busy_share": busy / wall,
        "seconds": parts,
        "peak_mb": round(torch.cuda.max_memory_reserved() / 1e6) if setup.device == "cuda" else None,
    }


def stage_config(setup: Setup) -> LabelConfig:
    """Return the labelling configuration: full-size models with random weights, or the demo's."""
    common = {"device": setup.device, "precision": setup.half if setup.device == "cuda" else "float32"}
    if setup.small:
        return LabelConfig(
            input="",
            output="",
            classes="demo",
            detector=DetectorConfig(model="demo", **common),  # type: ignore[arg-type]
            segmenter=SegmenterConfig(model="tiny", **common),  # type: ignore[arg-type]
        )
    if not (setup.folder / "dino").exists():
        write_detector(setup.folder / "dino")
    if not (setup.folder / "sam/weights.pth").exists():
        write_sam(setup.folder / "sam", "vit_h")
    return LabelConfig(
        input="",
        output="",
        classes="voc",
        detector=DetectorConfig(model=str(setup.folder / "dino"), box_threshold=0.5, batch_size=16, **common),  # type: ignore[arg-type]
        segmenter=SegmenterConfig(
            checkpoint=str(setup.folder / "sam/weights.pth"), batch_size=16, preprocessing="torchvision", **common
        ),  # type: ignore[arg-type]
    )


def mixed_rows(setup: Setup, first: int) -> pa.Table:
    """Return image rows of drawn scenes, enlarged to the usual sizes of COCO, as JPEGs."""
    count = 4 if setup.small else 32
    tags = ["cat", "umbrella"] if setup.small else TAGS
    rows = []
    for index, seed in enumerate(split_seeds("train", count, first=first * count)):
        height, width = SIZES[index % len(SIZES)]
        buffer = io.BytesIO()
        Image.fromarray(draw_scene(seed).image).resize((width, height)).save(buffer, "JPEG", quality=90)
        row = {"image_id": f"{first}-{index}", "image": buffer.getvalue(), "height": height, "width": width}
        rows.append({**row, "tags": tags})
    return pa.Table.from_pylist(rows)


# Part 6


def limits(setup: Setup) -> dict[str, Any]:
    """Make 900 masks of one image with SAM's settings for a T4 and 16 GB of memory, and lose the device."""
    segmenter = dataclasses.replace(stage_config(setup).segmenter, batch_size=2, boxes_per_chunk=32)
    found: dict[str, Any] = {}
    if setup.device == "cuda":
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, 16e9 / total))
        segmenter = dataclasses.replace(segmenter, precision="float16")
    labeller = Labeller(dataclasses.replace(stage_config(setup), segmenter=segmenter))
    boxes = 20 if setup.small else 900
    photo = random_photo(np.random.default_rng(0))
    with peak_memory(setup, found):
        prepared = labeller.segmenter.prepare([photo], [random_boxes(np.random.default_rng(0), boxes)])
        found["masks"] = sum(1 for _ in labeller.segmenter.masks(prepared))
    if setup.device == "cuda":
        torch.cuda.set_per_process_memory_fraction(1.0)
        found["lost_device"] = lose_device()
    return found


def lose_device() -> str:
    """Return how a stage ends in another process whose GPU fails an assertion: it must say that the device is lost."""
    ended = subprocess.run(
        [sys.executable, __file__, "--lose-device"], capture_output=True, text=True, timeout=120, check=False
    )
    return ended.stdout.strip().splitlines()[-1] if ended.stdout.strip() else ended.stderr[-300:]


def lose() -> None:
    """Fail an assertion on the GPU inside a guarded stage, and print what the stage raised."""
    from wsss_ray.labels.observing import GuardedStage  # noqa: PLC0415

    class Failing:
        output_schema = pa.schema([])

        def __call__(self, rows: pa.Table, meter: Meter) -> pa.Table:
            del meter
            torch.zeros(3, device="cuda")[torch.tensor([5], device="cuda")].sum().item()
            return rows

    try:
        GuardedStage(Failing())(pa.table({}), Meter())
    except BaseException as error:  # noqa: BLE001 - it is what the test is about
        print(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")


PARTS: dict[str, Callable[[Setup], dict[str, Any]]] = {
    "correctness": correctness,
    "attention": attention,
    "encoder": encoder,
    "detector": detector,
    "label_stage": label_stage,
    "limits": limits,
}


def run(parts: Sequence[str], setup: Setup, write: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Run the parts in order; `write` is called after each with all results so far."""
    results: dict[str, Any] = {"environment": environment(setup)}
    chosen = Lines()
    logging.getLogger(self_check.__name__).addHandler(chosen)
    logging.getLogger(self_check.__name__).setLevel(logging.INFO)
    write(results)
    for name in parts:
        started = time.perf_counter()
        try:
            results[name] = PARTS[name](setup)
        except Exception as error:  # noqa: BLE001 - the other parts are still worth their time
            results[name] = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        results[name]["part_seconds"] = round(time.perf_counter() - started, 1)
        if setup.device == "cuda":
            torch.cuda.empty_cache()
            results["environment"]["kernels"] = chosen.lines  # what `self_check` chose, with its times
        print(f"{name}: {json.dumps(results[name])}", flush=True)
        write(results)
    return results


class Lines(logging.Handler):
    """Keeps log lines."""

    def __init__(self) -> None:
        """Start without lines."""
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(record.getMessage())


def environment(setup: Setup) -> dict[str, Any]:
    """Return the versions and the GPU."""
    import transformers  # noqa: PLC0415

    found = {"torch": torch.__version__, "transformers": transformers.__version__, "threads": threading.active_count()}
    if setup.device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
        found["cuda"] = str(torch.version.cuda)
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--small", action="store_true", help="small networks, few images; on the CPU without a GPU")
    parser.add_argument("--json", type=Path, help="file for the results, written after each part")
    parser.add_argument("--lose-device", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.lose_device:
        lose()
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not options.small:
        parser.error("CUDA does not start here: give --small to run this on the CPU.")

    def write(results: dict[str, Any]) -> None:
        if options.json:
            options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory(prefix="wsss-ray-gpu-") as folder:
        results = run(options.parts, Setup(device=device, small=options.small, folder=Path(folder)), write)
    failed = [name for name in options.parts if "error" in results[name]]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
