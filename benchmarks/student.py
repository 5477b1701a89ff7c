"""Measure training steps of the full-size student on real photos: seconds, FLOPs, and the share of the CPU's peak.

    python benchmarks/student.py [--architecture deeplabv2-resnet101] [--batch 1] [--crop 321] [--steps 3]
                                 [--threads 1] [--voc DIRECTORY] [--json FILE]

A step is forward, loss and backward at all scales and an SGD update, in float32 from random weights, on crops of VOC
photos with ground truth. torch counts the FLOPs of convolutions and matrix products (a multiply and an add are two).
The peak is the best of several square matrix products in this process.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from measuring import machine, write_json
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from wsss_ray.classes import ClassSet
from wsss_ray.config import StudentConfig
from wsss_ray.models.student.building import build_student
from wsss_ray.models.student.network import StudentNetwork
from wsss_ray.models.student.spec import IGNORE, label_to_index

SHARED = Path(os.environ.get("WSSS_SHARED", "../shared"))
LR, MOMENTUM, WEIGHT_DECAY = 2.5e-4, 0.9, 5e-4


def load_crops(voc: Path, student: StudentNetwork, count: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return padded top left crops of the first photos with truth: (N, 3, S, S) uint8 and (N, S, S) channels."""
    images, labels = [], []
    for path in sorted((voc / "SegmentationClass").glob("*.png"))[:count]:
        image = np.asarray(Image.open(voc / "JPEGImages" / f"{path.stem}.jpg").convert("RGB"))[:side, :side]
        label = label_to_index(np.asarray(Image.open(path)), student.spec)[:side, :side]
        padding = ((0, side - image.shape[0]), (0, side - image.shape[1]))
        channels = [
            np.pad(image[..., channel], padding, constant_values=round(mean))
            for channel, mean in enumerate(student.spec.preprocessing.mean)
        ]
        images.append(np.stack(channels))
        labels.append(np.pad(label, padding, constant_values=IGNORE))
    if len(images) < count:
        raise SystemExit(f"{voc} has {len(images)} photos with truth, not {count}: set --voc or WSSS_SHARED.")
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))


def measure_peak(side: int = 2048, repeats: int = 5) -> float:
    """Return the FLOP/s of the fastest float32 product of two square matrices."""
    left, right = torch.rand(side, side), torch.rand(side, side)
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds[1:])


def train_step(
    student: StudentNetwork, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Make one update; return the loss, summed over the outputs."""
    targets = student.targets(labels)
    valid = torch.stack([(target != IGNORE).sum() for target in targets]).clamp(min=1)
    loss = (student.loss_sums(student(images), targets) / valid).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="deeplabv2-resnet101")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--crop", type=int, default=321)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--voc", type=Path, default=SHARED / "data" / "voc" / "VOCdevkit" / "VOC2012")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = StudentConfig(architecture=arguments.architecture, init="none")
    student = build_student(config, ClassSet.load("voc"), weights=None)
    images, labels = load_crops(arguments.voc, student, arguments.batch, arguments.crop)
    optimizer = torch.optim.SGD(student.parameter_groups(LR, WEIGHT_DECAY), momentum=MOMENTUM)
    with FlopCounterMode(display=False) as counter:  # includes the warm-up
        losses = [train_step(student, optimizer, images, labels).item()]
    flops = counter.get_total_flops()
    peak, seconds = measure_peak(), []
    for _ in range(arguments.steps):
        start = time.perf_counter()
        losses.append(train_step(student, optimizer, images, labels).item())
        seconds.append(time.perf_counter() - start)
    assert all(np.isfinite(losses)), losses
    speed = flops / statistics.median(seconds)
    row = {
        "architecture": arguments.architecture,
        "batch": arguments.batch,
        "crop": arguments.crop,
        "threads": arguments.threads,
        "flop_per_step": flops,
        "seconds_per_step": seconds,
        "flop_per_second": speed,
        "peak_flop_per_second": peak,
        "fraction_of_peak": speed / peak,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "losses": losses,
    }
    print(machine(arguments.threads))
    print(
        f"{'student':22} {'batch':>5} {'TFLOP':>7} {'s/step':>7} {'GFLOP/s':>8} {'peak':>7} {'fraction':>8} {'MiB':>6}"
    )
    print(
        f"{arguments.architecture:22} {arguments.batch:5} {flops / 1e12:7.3f} {statistics.median(seconds):7.2f} "
        f"{speed / 1e9:8.1f} {peak / 1e9:7.1f} {speed / peak:8.2f} {row['peak_memory_mib']:6.0f}"
    )
    print("losses:", " ".join(f"{loss:.3f}" for loss in losses))
    write_json(arguments.json, [row], machine=machine(arguments.threads))


if __name__ == "__main__":
    main()
