"""The parts of labelling and training at full size, counted on fake tensors: seconds, without GPU and weights."""

from __future__ import annotations

from typing import Any, Literal

import torch
from segment_anything import sam_model_registry
from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection

from wsss_ray.classes import ClassSet
from wsss_ray.config.student import StudentConfig
from wsss_ray.models.cost.counter import Count, counting
from wsss_ray.models.cost.fake import CUDA, fake_compute, fake_cuda, on_fake_cuda
from wsss_ray.models.detector.network import prepare_network, run_network
from wsss_ray.models.device import AUTOCAST_DTYPES, Tier
from wsss_ray.models.fast import ops, sam_windows
from wsss_ray.models.fast.sam_decoder import BoxDecoder
from wsss_ray.models.sam.encoder import ImageEncoder
from wsss_ray.models.student.building import build_student

PHOTO = (800, 1066)
"""Height and width of the detector's input for a photo of 480 x 640."""
TOKENS = 20
"""Tokens of a prompt: four or five classes."""
SWIN = {
    "swin-t": {},
    "swin-b": {
        "embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "window_size": 12, "image_size": 384,
    },
}  # fmt: skip
"""What the image backbones differ in; swin-t is the default of transformers."""


ENCODERS = ("vit_h", "vit_l", "vit_b")
PARTS = (*ENCODERS, "decoder", *SWIN, "student")
BATCH = {part: 4 if part in SWIN else 8 for part in PARTS}
"""Images that run together by default."""
BOXES = 8
"""Boxes of an image; the mean of COCO is seven objects."""
READS = {"decoder": 1, "swin-t": 1, "swin-b": 1}
"""Times that the host reads the results of a batch: masks, and a table of boxes (`tests/cuda` counts them)."""
CROP = 321
"""Side of the student's training images in pixels."""


def precisions_of(part: str) -> tuple[Tier, ...]:
    """Return the precisions in which a part runs."""
    if part == "decoder":
        return ("float32",)
    if part == "student":
        return ("float32", "tf32", "bfloat16")
    return ("float32", "tf32", "float16", "bfloat16")


def count(part: str, tier: Tier, *, batch: int, triton: bool = True) -> Count:
    """Return what a part does for a batch of images; with `triton`, by this package's kernels where it has any."""
    if part in ENCODERS:
        return count_encoder(part, batch=batch, tier=tier, triton=triton)
    if part == "decoder":
        return count_decoder(images=batch, boxes=batch * BOXES)
    if part == "student":
        return count_student_step(batch=batch, tier=tier)
    return count_detector(part, batch=batch, tier=tier, triton=triton)


def count_encoder(
    model: str, *, batch: int, tier: Tier, kernels: Literal["auto", "stock"] = "auto", triton: bool = True
) -> Count:
    """Return what SAM's image encoder does for a batch of images of 1024 x 1024."""
    sam = _sam(model)
    with fake_cuda():
        on_fake_cuda(sam)
        attend = ops.attend if triton else sam_windows.attend
        encoder = ImageEncoder(sam, fake_compute(tier), kernels=kernels, attend=attend)
        with fake_compute(tier).running():
            inputs = torch.empty(batch, 3, encoder.side, encoder.side, device=CUDA)
            with counting(sam.image_encoder.parameters()) as count:
                encoder.features_of(inputs)
    return count


def count_decoder(*, images: int, boxes: int) -> Count:
    """Return what SAM's mask decoder does for boxes of several images. It runs in float32."""
    sam = _sam("vit_b")  # the decoder is the same in all
    with fake_cuda():
        on_fake_cuda(sam)
        with fake_compute("float32").running():
            decoder = BoxDecoder(sam)
            features = torch.empty(images, 256, 64, 64, device=CUDA)
            of_image = torch.zeros(boxes, dtype=torch.int64, device=CUDA)
            corners = torch.empty(boxes, 4, device=CUDA)
            with counting() as count:
                decoder.decode(decoder.tokens_of_images(features), of_image, corners)
    return count


def count_detector(
    backbone: str = "swin-t",
    *,
    batch: int,
    tier: Tier,
    size: tuple[int, int] = PHOTO,
    tokens: int = TOKENS,
    kernels: Literal["auto", "stock"] = "auto",
    triton: bool = True,
) -> Count:
    """Return what Grounding DINO does for a batch of images of one size."""
    settings: dict[str, Any] = {"out_indices": [2, 3, 4], **SWIN[backbone]}
    config = GroundingDinoConfig(backbone_config={"model_type": "swin", **settings}) if SWIN[backbone] else None
    with torch.device("meta"):
        network = GroundingDinoForObjectDetection(config or GroundingDinoConfig()).eval()
    network.requires_grad_(False)
    with fake_cuda():
        on_fake_cuda(network)
        prepare_network(network, fake_compute(tier), kernels=kernels, sample=ops.sample if triton else ops.stock_sample)
        with fake_compute(tier).running():
            ids = torch.zeros(batch, tokens, dtype=torch.long, device=CUDA)
            inputs = (torch.empty(batch, 3, *size, device=CUDA), ids, torch.ones_like(ids))
            run_network(network, *inputs)  # makes what is kept for a size of image
            with counting(network.parameters()) as count:
                run_network(network, *inputs)
    return count


def count_student_step(*, batch: int, tier: Tier) -> Count:
    """Return what one update of DeepLab-v2 with ResNet-101 does: forward, loss, backward and SGD.

    The device is a fake CPU, because the threads that compute gradients on CUDA need a driver.
    """
    device = torch.device("cpu")
    with torch.device("meta"):
        student = build_student(StudentConfig(init="none"), ClassSet.load("voc"), weights=None)
    with fake_cuda():
        on_fake_cuda(student, device)
        groups = student.parameter_groups(lr=0.01, weight_decay=0.0005)
        optimizer = torch.optim.SGD(groups, momentum=0.9)
        images = torch.empty(batch, 3, CROP, CROP, device=device)
        labels = torch.zeros(batch, CROP, CROP, dtype=torch.int16, device=device)
        dtype = AUTOCAST_DTYPES.get(tier)

        def step() -> None:
            targets = student.targets(labels)
            with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
                outputs = student(images)
            optimizer.zero_grad(set_to_none=True)
            student.loss_sums(outputs, targets).sum().backward()
            optimizer.step()

        step()  # makes the momentum
        with counting() as count:
            step()
    return count


def _sam(model: str) -> Any:
    with torch.device("meta"):
        return sam_model_registry[model]().eval().requires_grad_(False)
