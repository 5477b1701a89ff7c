"""The whole label stage on pretended CUDA: no device is mixed, masks are the CPU's, the host seldom waits."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from cuda_cases import PRECISIONS, GpuRun, Scenes, check_budget, differences, ious, label_on_gpu
from numpy.typing import NDArray
from pretended_cuda import DeviceError
from torch import Tensor

from wsss_ray.models.fast.grounding_dino_device import DeviceDecoder
from wsss_ray.models.fast.sam_decoder import BoxDecoder
from wsss_ray.models.fast.sam_half import HalfEncoder
from wsss_ray.models.results import Detections
from wsss_ray.models.sam import encoder
from wsss_ray.models.sam.packed_masks import PackedMasks

SYNCS_PER_IMAGE = {"float32": 1.0, "bfloat16": 1.0, "float16": 1.25}
"""Waits of the host for the GPU, for one of the scenes, over the whole stage: one for each size of image, one for the
masks of all. float16 looks for an overflow, too."""
PAGEABLE = {"wsss_ray": 2, "transformers": 6}
"""Copies to the GPU that are not from pinned memory, or that the host waits for, by the package that makes them: the
mean and the deviation of the images once in a process; two tables of a few numbers in each forward pass of three."""


def check_budgets(run: GpuRun, precision: str, scenes: Scenes) -> None:
    images = len(scenes.pictures)
    check_budget(run.syncs, images=images, per_image=SYNCS_PER_IMAGE[precision], what="waits of the host")
    for package, budget in PAGEABLE.items():
        copies = Counter({line: count for line, count in run.pageable.items() if line.startswith(f"{package}/")})
        check_budget(copies, images=images, per_image=budget / images, what="pageable copies")
    assert {line.partition("/")[0] for line in run.pageable} <= set(PAGEABLE)


def missed(expected: Detections, found: Detections) -> list[int]:
    """Return the boxes without a box of the same class within 3 pixels. Where the score is close to the threshold of
    0.3, rounding decides whether there is one."""
    near = np.abs(expected.boxes[:, None] - found.boxes).max(-1) < 3
    same = expected.class_ids[:, None] == found.class_ids
    return np.flatnonzero((expected.scores > 0.4) & ~(near & same).any(1)).tolist()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_gpu_labels_as_the_cpu_does(precision: str, scenes: Scenes) -> None:
    run = label_on_gpu(precision, scenes)
    values = ious(scenes.labels, run.labels)
    assert len(values) >= 10
    if precision == "float32":
        assert min(values) == 1.0
        pairs = zip(scenes.found, run.found, strict=True)
        assert max(differences(*pair)["boxes"] for pair in pairs) < 0.1  # pixels
    else:
        assert sum(values) / len(values) >= 0.99
    for here, there in zip(scenes.found, run.found, strict=True):
        assert missed(here, there) == []
        assert missed(there, here) == []
    assert run.launches_at_start > 0, "nothing has checked the GPU"
    check_budgets(run, precision, scenes)


@pytest.mark.parametrize(
    ("precision", "settings"),
    [("bfloat16", {"kernels": "stock", "preprocessing": "pil"}), ("float16", {"paint": "prob"})],
)
def test_stock_kernels_and_probabilities_mix_no_devices(
    precision: str, settings: dict[str, str], scenes: Scenes
) -> None:
    values = ious(scenes.labels, label_on_gpu(precision, scenes, **settings).labels)
    assert len(values) >= 10
    assert sum(values) / len(values) >= 0.99


@pytest.mark.parametrize("broken", [HalfEncoder, DeviceDecoder])
def test_fast_layers_that_fail_on_a_gpu_leave_the_stock_ones(
    broken: type[Any], scenes: Scenes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(broken, "forward", fail)
    values = ious(scenes.labels, label_on_gpu("bfloat16", scenes).labels)
    assert "fast layers do not run here (RuntimeError: planted); stock ones are used" in caplog.text
    assert sum(values) / len(values) >= 0.99


def test_a_planted_tensor_of_the_cpu_is_found(scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    real = BoxDecoder.tokens_of_images
    monkeypatch.setattr(
        BoxDecoder, "tokens_of_images", lambda self, features: real(self, features) + torch.zeros(1, 1, 1)
    )
    with pytest.raises(
        DeviceError, match=r"add: tensors \[\(1, 1, 1\)\] of the CPU .* at wsss_ray/models/sam/boxes.py"
    ):
        label_on_gpu("bfloat16", scenes)


def test_masks_that_are_read_before_their_copy_is_done_are_wrong(
    scenes: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = PackedMasks.send

    def send(self: PackedMasks) -> None:
        real(self)
        self._copied = None  # nothing to wait for

    monkeypatch.setattr(PackedMasks, "send", send)
    values = ious(scenes.labels, label_on_gpu("float32", scenes).labels)
    assert min(values) < 0.5


def test_a_planted_item_exceeds_the_budget(scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    real = BoxDecoder.decode

    def decode(self: BoxDecoder, images: Tensor, image_of_box: Tensor, boxes: Tensor) -> Any:
        assert boxes.sum().item() > 0
        return real(self, images, image_of_box, boxes)

    monkeypatch.setattr(BoxDecoder, "decode", decode)
    with pytest.raises(AssertionError, match=r"(?s)waits of the host.* 1 x wsss_ray/models/sam/boxes.py:\d+ _local_sc"):
        check_budgets(label_on_gpu("bfloat16", scenes), "bfloat16", scenes)


def test_a_planted_pageable_copy_exceeds_the_budget(scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    def unpinned(array: NDArray[np.uint8], device: torch.device) -> Tensor:
        return torch.from_numpy(array).to(device)

    monkeypatch.setattr(encoder, "to_device", unpinned)
    with pytest.raises(AssertionError, match=r"(?s)pageable copies.* 4 x wsss_ray/models/sam/encoder.py:\d+ copy to"):
        check_budgets(label_on_gpu("bfloat16", scenes), "bfloat16", scenes)
