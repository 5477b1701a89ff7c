"""Photos, boxes and small SAMs for the segmenter's tests, and the package's own predictor as their reference."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from random_models import SAM_CONFIG
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

from wsss_ray.models.results import MaskCrop
from wsss_ray.models.sam.boxes import SamBoxes

LIKE_VIT_B = SAM_CONFIG | {
    "image_size": 512,
    "patch_size": 16,
    "embed_dim": 48,
    "depth": 3,
    "num_heads": 3,
    "global_attn_indexes": [2],
    "window_size": 14,
    "mlp_ratio": 4,
    "prompt_embed_dim": 64,
    "decoder_num_heads": 8,
    "decoder_mlp_dim": 128,
}
"""The grid and the windows of ViT-B at half its side: windows are padded, the decoder has eight heads."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the package makes of one image: logits of the original size (N, H, W) and predicted IoUs (N,)."""

    logits: np.ndarray
    scores: np.ndarray


def segment(
    segmenter: SamBoxes, images: Iterable[np.ndarray], boxes: Iterable[np.ndarray], *, probabilities: bool = False
) -> list[list[MaskCrop]]:
    """Return the masks of each image in the order of its boxes."""
    images = list(images)
    crops: list[list[MaskCrop]] = [[] for _ in images]
    for index, crop in segmenter.masks(segmenter.prepare(images, boxes), probabilities=probabilities):
        crops[index].append(crop)
    return crops


def predict_one_by_one(sam: Sam, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> list[Reference]:
    """`SamPredictor.set_image` and `predict_torch` for each image that has boxes."""
    references = []
    for image, image_boxes in zip(images, boxes, strict=True):
        size = image.shape[:2]
        if not len(image_boxes):
            references.append(Reference(logits=np.zeros((0, *size)), scores=np.zeros(0)))
            continue
        predictor = SamPredictor(sam)
        predictor.set_image(image)
        prompts = predictor.transform.apply_boxes_torch(torch.from_numpy(image_boxes), size)
        logits, scores, _ = predictor.predict_torch(None, None, prompts, multimask_output=False, return_logits=True)
        references.append(Reference(logits=logits[:, 0].numpy(), scores=scores[:, 0].numpy()))
    return references


def random_boxes(generator: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """(count, 4) boxes within an image, from slim to nearly all of it."""
    corners = generator.random((count, 2, 2)) * [width, height]
    return np.concatenate([corners.min(1), corners.max(1)], axis=1).astype(np.float32)


def whole_mask(crop: MaskCrop, height: int, width: int) -> np.ndarray:
    """(H, W) bool of a crop."""
    mask = np.zeros((height, width), np.bool_)
    mask[crop.top : crop.top + crop.mask.shape[0], crop.left : crop.left + crop.mask.shape[1]] = crop.mask
    return mask


def assert_masks_agree(crops: Sequence[MaskCrop], reference: Reference, *, tolerance: float = 1e-5) -> int:
    """Masks differ only where the logit is 0 to rounding (`tolerance` of their range); returns how many pixels do."""
    assert [crop.box_index for crop in crops] == list(range(len(reference.logits)))
    np.testing.assert_allclose([crop.score for crop in crops], reference.scores, rtol=0, atol=1e-5)
    different = 0
    for crop, logits in zip(crops, reference.logits, strict=True):
        differs = whole_mask(crop, *logits.shape) != (logits > 0)
        assert np.abs(logits[differs]).max(initial=0) <= tolerance * np.abs(logits).max()
        different += int(differs.sum())
    return different
