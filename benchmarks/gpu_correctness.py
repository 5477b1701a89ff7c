"""First part of `gpu.py`: labels, a training step, a checkpoint and DenseCRF, compared with the CPU's."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsss_ray import ClassSet, Labeller
from wsss_ray.config import CrfConfig, StudentConfig
from wsss_ray.demo.scenes import draw_scene, split_seeds
from wsss_ray.models.crf.crf import dense_crf
from wsss_ray.models.device import Compute, resolve_compute
from wsss_ray.models.student.building import build_student
from wsss_ray.training.checkpoint import restore_snapshot, take_snapshot
from wsss_ray.training.updates import Schedule, Updater


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The device, and the size of the networks."""

    device: str
    small: bool
    folder: Path
    """For random weights."""

    @property
    def tiers(self) -> list[str]:
        """Precisions to compare with the CPU's float32."""
        if self.device == "cpu":
            return ["float32", "bfloat16"]
        native = torch.cuda.get_device_capability()[0] >= 8
        return ["float32", *(["tf32", "bfloat16"] if native else []), "float16"]

    @property
    def half(self) -> str:
        """The fastest precision."""
        return "bfloat16" if "bfloat16" in self.tiers else "float16"


def milliseconds(setup: Setup, call: Callable[[], object], *, runs: int = 10) -> float:
    """Return the median of a call's milliseconds, after two calls that warm up."""
    taken = []
    for _ in range(2 + (1 if setup.small else runs)):
        started = time.perf_counter()
        call()
        synchronize(setup)
        taken.append((time.perf_counter() - started) * 1000)
    return float(np.median(taken[2:]))


def synchronize(setup: Setup) -> None:
    """Wait for the GPU."""
    if setup.device == "cuda":
        torch.cuda.synchronize()


@contextmanager
def peak_memory(setup: Setup, result: dict[str, Any]) -> Iterator[None]:
    """Note the peak of the GPU's memory in the block, in MB."""
    if setup.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    yield
    result["peak_mb"] = round(torch.cuda.max_memory_allocated() / 1e6) if setup.device == "cuda" else None


def correctness(setup: Setup) -> dict[str, Any]:
    """Compare labels, a training step, a checkpoint and DenseCRF with the CPU's."""
    scenes = [draw_scene(seed) for seed in split_seeds("validation", 2 if setup.small else 24)]
    images, tags = [scene.image for scene in scenes], [scene.tags for scene in scenes]
    expected = demo_labeller("cpu", "float32").label(images, tags)
    labels = {}
    for tier in setup.tiers:
        labeller = demo_labeller(setup.device, tier)
        labeller.label(images[:1], tags[:1])
        with count_syncs(setup) as syncs:
            found = labeller.label(images, tags)
        ious = [
            iou(mine.mask(), theirs.mask())
            for one, other in zip(found, expected, strict=True)
            for mine, theirs in zip(one.instances, other.instances, strict=False)
        ]
        labels[tier] = {
            "images_with_equal_boxes": sum(
                len(one.instances) == len(other.instances) for one, other in zip(found, expected, strict=True)
            ),
            "images": len(images),
            "mask_iou_mean": float(np.mean(ious)),
            "mask_iou_least": float(np.min(ious)),
            "equal_pixels": float(
                np.mean([np.mean(one.label == other.label) for one, other in zip(found, expected, strict=True)])
            ),
            "syncs_per_image": None if syncs is None else len(syncs) / len(images),
        }
    return {"labels": labels, "student": student_step(setup), "crf": crf(setup)}


def demo_labeller(device: str, tier: str) -> Labeller:
    """Return a labeller with the demo's models."""
    labeller = Labeller.from_config("demo")
    config = labeller.config
    return Labeller(
        dataclasses.replace(
            config,
            detector=dataclasses.replace(config.detector, device=device, precision=tier),
            segmenter=dataclasses.replace(config.segmenter, device=device, precision=tier),
        )
    )


def iou(first: np.ndarray, second: np.ndarray) -> float:
    """Return the intersection over union of two masks; 1 where both are empty."""
    union = np.count_nonzero(first | second)
    return 1.0 if union == 0 else np.count_nonzero(first & second) / union


@contextmanager
def count_syncs(setup: Setup) -> Iterator[list[Any] | None]:
    """Collect PyTorch's warnings of host synchronisations in the block; None on the CPU."""
    if setup.device == "cpu":
        yield None
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield caught
        finally:
            torch.cuda.set_sync_debug_mode("default")


def student_step(setup: Setup) -> dict[str, Any]:
    """Compare updates of a small student with the CPU's in float32, and continue one from a checkpoint."""
    steps = 2 if setup.small else 5
    expected, _ = updates(Compute(device=torch.device("cpu"), tier="float32"), steps)
    found = {}
    for tier in [tier for tier in setup.tiers if tier != "float16"]:
        losses, _ = updates(resolve_compute(setup.device, tier), steps)
        found[tier] = float(np.max(np.abs(np.array(losses) - expected) / np.abs(expected)))
    straight, student = updates(resolve_compute(setup.device, "float32"), steps)
    resumed, other = updates(resolve_compute(setup.device, "float32"), steps, stop=1)
    pairs = zip(student.parameters(), other.parameters(), strict=True)
    return {
        "largest_relative_difference_of_losses": found,
        "resumed_losses_differ_by": float(np.max(np.abs(np.array(straight) - resumed))),
        "resumed_strides_are_equal": all(one.stride() == two.stride() for one, two in pairs),
    }


def updates(compute: Compute, steps: int, *, stop: int | None = None) -> tuple[list[float], torch.nn.Module]:
    """Return the losses of a few updates and the student; at `stop` it continues from a checkpoint in a new one."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (steps, 4, 65, 65, 3), dtype=np.uint8)
    labels = random.integers(0, 5, (steps, 4, 65, 65)).astype(np.int16)
    updater = make_updater(compute)
    losses = []
    for step in range(steps):
        if step == stop:
            snapshot = take_snapshot(step, updater.student, updater.optimizer)
            updater = make_updater(compute)
            restore_snapshot(snapshot, updater.student, updater.optimizer)
        losses.append(float(updater.update(step, images[step], labels[step]).sum()))
    return losses, updater.student


def make_updater(compute: Compute) -> Updater:
    """Return the updater of a tiny student with fixed weights."""
    torch.manual_seed(0)
    config = StudentConfig(architecture="deeplabv2-tiny", init="none")
    student = build_student(config, ClassSet.load("demo"), weights=None).to(compute.device).train()
    return Updater(
        student.to(memory_format=torch.channels_last),
        compute=compute,
        optimizer="sgd",
        learning_rate=1e-3,
        momentum=0.9,
        weight_decay=5e-4,
        schedule=Schedule(iterations=100, power=0.9),
        accumulation=1,
    )


def crf(setup: Setup) -> float:
    """Return the largest difference of DenseCRF's probabilities from the CPU's."""
    image = draw_scene(split_seeds("validation", 1)[0]).image
    logits = torch.randn(6, *image.shape[:2], generator=torch.Generator().manual_seed(0))
    probabilities = logits.softmax(0)
    with torch.inference_mode():
        expected = dense_crf(image, probabilities, CrfConfig())
        found = dense_crf(image, probabilities.to(setup.device), CrfConfig())
    return float((found.cpu() - expected).abs().max())
