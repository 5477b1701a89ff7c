"""Random weights for the benchmarks: speed does not depend on them, and pretrained ones are not part of the project."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from segment_anything import sam_model_registry
from transformers import (
    BertTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
)

from tools.demo_models.tiny_detector import vocabulary
from wsss_ray.models.sam.tiny import TINY_SAM_CONFIG, build_tiny_sam

SMALL_ENCODER = TINY_SAM_CONFIG | {
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
"""Configuration of the published decoder after a small encoder."""


def write_sam(directory: Path, model: str) -> Path:
    """Write `vit_b`, `vit_l`, `vit_h` or `small` (SMALL_ENCODER) with positions that are not zero; return the file."""
    directory.mkdir(exist_ok=True)
    torch.manual_seed(1)
    sam = build_tiny_sam(SMALL_ENCODER) if model == "small" else sam_model_registry[model]()
    with torch.no_grad():
        for name, parameter in sam.named_parameters():
            if "rel_pos" in name or name.endswith("pos_embed"):
                parameter.normal_(0, 0.02)
            elif name.startswith("mask_decoder") and parameter.ndim > 1:
                parameter.mul_(1.5)
            elif name.startswith("prompt_encoder.point_embeddings"):
                parameter.mul_(3)
    (directory / "config.json").write_text(json.dumps(SMALL_ENCODER), encoding="utf-8")
    torch.save(sam.state_dict(), directory / "weights.pth")
    return directory / "weights.pth"


def write_detector(directory: Path) -> None:
    """Write Grounding DINO Swin-T: transformers' default configuration is that of the published tiny model."""
    torch.manual_seed(0)
    model = GroundingDinoForObjectDetection(GroundingDinoConfig())
    with torch.no_grad():
        model.model.decoder.layer_norm.weight.mul_(0.02)  # otherwise all random scores would be 1
        for name, parameter in model.named_parameters():
            if "vision_param" in name or "text_param" in name:
                parameter.fill_(0.3)  # the initial 1e-4 would hide the fusion of text and image
    pieces = {piece: index for index, piece in enumerate(vocabulary())}
    tokenizer = BertTokenizer(vocab=pieces, do_lower_case=True, model_max_length=256)
    model.save_pretrained(directory)
    GroundingDinoProcessor(GroundingDinoImageProcessor(), tokenizer).save_pretrained(directory)
