"""Scenes, stages and comparisons for the tests on pretended CUDA."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pretended_cuda import pretended_cuda

from wsss_ray.engine.meter import Meter
from wsss_ray.labeller import Labeller
from wsss_ray.labelling.fusing import FusedLabel
from wsss_ray.labels.decoded_images import Picture
from wsss_ray.models.results import Detections
from wsss_ray.shards.label_row import LabelRow

PRECISIONS = ("float32", "bfloat16", "float16")


def labeller(device: str, precision: str, *, paint: str = "score", **fields: Any) -> Labeller:
    """Return a labeller of the demo's models, as an actor has it: device and precision are decided.

    Args:
        device: cpu or cuda.
        precision: of both models.
        paint: the fusion rule.
        fields: further settings of both models.
    """
    config = Labeller("demo").config
    settings: dict[str, Any] = {"device": device, "precision": precision, **fields}
    return Labeller(
        dataclasses.replace(
            config,
            detector=dataclasses.replace(config.detector, **settings),
            segmenter=dataclasses.replace(config.segmenter, **settings),
            fusion=dataclasses.replace(config.fusion, paint=paint),
        )
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Scenes:
    """Images and tags, with the boxes and labels that the CPU finds in float32."""

    pictures: list[Picture]
    found: list[Detections]
    labels: list[FusedLabel]

    @classmethod
    def labelled(cls, labels: Labeller, images: Sequence[np.ndarray], tags: Sequence[list[str]]) -> Scenes:
        """Label images by a labeller on the CPU."""
        pictures = [
            Picture(
                row={"image_id": str(index), "tags": names, "height": image.shape[0], "width": image.shape[1]},
                image=image,
            )
            for index, (image, names) in enumerate(zip(images, tags, strict=True))
        ]
        found = labels.detect(pictures, Meter())
        return cls(pictures=pictures, found=found, labels=labels.label_pictures(pictures, found, Meter()))


@dataclass(frozen=True, kw_only=True)
class GpuRun:
    """What the label stage makes of the scenes on the pretended GPU, once its models are loaded."""

    found: list[Detections]
    labels: list[FusedLabel]
    """From the boxes of the CPU."""
    syncs: Counter[str]
    pageable: Counter[str]
    launches_at_start: int
    """Kernels that ran while the models were loaded."""


def label_on_gpu(precision: str, scenes: Scenes, **settings: Any) -> GpuRun:
    """Run the whole label stage on the pretended GPU; `settings` are those of `labeller`."""
    with pretended_cuda() as gpu:
        labels = labeller("cuda", precision, **settings)
        _ = labels.detector, labels.segmenter
        launches = gpu.launches
        gpu.reset()
        return GpuRun(
            found=labels.detect(scenes.pictures, Meter()),
            labels=labels.label_pictures(scenes.pictures, scenes.found, Meter()),
            syncs=gpu.syncs,
            pageable=gpu.pageable,
            launches_at_start=launches,
        )


def ious(expected: Sequence[FusedLabel], found: Sequence[FusedLabel]) -> list[float]:
    """Return the IoU of each mask with the mask of the same box; the masks must be as many."""
    values = []
    for here, there in zip(expected, found, strict=True):
        for one, other in zip(_masks(here.row), _masks(there.row), strict=True):
            values.append(float((one & other).sum() / max(1, (one | other).sum())))
    return values


def _masks(row: LabelRow) -> list[np.ndarray]:
    return [instance.mask() for instance in row.instances or ()]


def check_budget(counted: Counter[str], *, images: int, per_image: float, what: str) -> None:
    """Check that a count stays within its budget; the error names every line that contributes.

    Args:
        counted: occurrences by line, from `PretendedGpu`.
        images: images that were worked on.
        per_image: most occurrences for an image.
        what: is counted, for the error.
    """
    if counted.total() > images * per_image:
        lines = "\n".join(f"  {number:4} x {line}" for line, number in counted.most_common())
        raise AssertionError(
            f"{counted.total() / images:g} {what} an image, the budget is {per_image:g}; for {images} images:\n{lines}"
        )


def differences(expected: Detections, found: Detections) -> dict[str, Any]:
    """Return how far detections are apart; they must be of the same classes in the same order."""
    assert expected.class_ids.tolist() == found.class_ids.tolist()
    return {
        "boxes": float(np.abs(expected.boxes - found.boxes).max(initial=0)),
        "scores": float(np.abs(expected.scores - found.scores).max(initial=0)),
    }
