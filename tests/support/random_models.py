"""Small networks with random weights, rescaled so that real photos give boxes, classes and masks of all kinds."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    BertConfig,
    BertTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
    SwinConfig,
)

from tools.demo_models.tiny_detector import vocabulary
from wsss_ray.models.sam.tiny import TINY_SAM_CONFIG, build_tiny_sam

EDGES = (160, 267)
"""Shortest and longest edge of the detectors' input: 800 and 1333, divided by five."""
FAMILIES = {
    "grounding-dino": (GroundingDinoConfig, GroundingDinoForObjectDetection),
    "mm-grounding-dino": (MMGroundingDinoConfig, MMGroundingDinoForObjectDetection),
}
SAM_CONFIG = TINY_SAM_CONFIG | {
    "image_size": 128,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "global_attn_indexes": [1],
    "window_size": 7,
    "mlp_ratio": 2,
    "prompt_embed_dim": 32,
    "decoder_mlp_dim": 64,
    "iou_head_hidden_dim": 32,
    "mask_in_chans": 4,
}


def build_tokenizer(max_tokens: int = 256) -> BertTokenizer:
    """A tokenizer that spells most words, so that prompts have many tokens."""
    pieces = {piece: index for index, piece in enumerate(vocabulary())}
    return BertTokenizer(vocab=pieces, do_lower_case=True, model_max_length=max_tokens)


def write_detector(directory: Path, family: str, *, seed: int) -> Path:
    """Write a detector of half a million weights into `directory`: most photos have queries on both sides of 0.3."""
    config_type, model_type = FAMILIES[family]
    config = config_type(
        backbone_config=SwinConfig(
            patch_size=4,
            embed_dim=16,
            depths=[1, 1, 1, 1],
            num_heads=[1, 2, 2, 4],
            window_size=5,
            drop_path_rate=0.0,
            out_indices=[2, 3, 4],
        ),
        text_config=BertConfig(
            vocab_size=len(vocabulary()),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=256,
        ),
        d_model=32,
        num_queries=60,
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        num_feature_levels=4,
        max_text_len=256,
        two_stage=True,
    )
    processor = GroundingDinoProcessor(
        GroundingDinoImageProcessor(size={"shortest_edge": EDGES[0], "longest_edge": EDGES[1]}), build_tokenizer()
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = model_type(config).eval()
        _vary_boxes(model)
        if family == "mm-grounding-dino":
            for head in model.class_embed:
                head.bias.fill_(-2.4)
        else:
            _lower_scores(model, processor.tokenizer)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


def _vary_boxes(model: torch.nn.Module) -> None:
    """As initialised, boxes are the places of the feature maps and the text hardly reaches the image."""
    for name, parameter in model.named_parameters():
        if name.endswith(("vision_param", "text_param")):
            parameter.fill_(0.5)
        elif "bbox_embed" in name and name.endswith("weight"):
            gain = 0.7 if "layers.2" in name else 1.4
            parameter.normal_(0, gain / parameter.shape[1] ** 0.5)
        elif "bbox_embed" in name and name.endswith("layers.2.bias"):
            parameter.copy_(torch.tensor([0.0, 0.0, 0.6, 0.6]))


def _lower_scores(model: torch.nn.Module, tokenizer: BertTokenizer) -> None:
    """Bring logits of deviation 6 around 0 to about 1 around -4: their family has no bias that would do it."""
    input_ids = tokenizer(["dog.cat.person."], return_tensors="pt")["input_ids"]
    outputs = model(pixel_values=torch.zeros(1, 3, 160, 160), input_ids=input_ids)
    text = outputs.encoder_last_hidden_state_text[0].mean(0)
    norm = model.model.decoder.layer_norm
    norm.weight.mul_(0.18)
    norm.bias.copy_(-4 * text / text.norm() ** 2)


def write_sam(directory: Path, *, seed: int, config: dict = SAM_CONFIG) -> Path:
    """Write a SAM of which a box's mask covers a tenth to a half of the photo, with embeddings of positions."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        sam = build_tiny_sam(config)
        for name, parameter in sam.named_parameters():
            if "rel_pos" in name or name.endswith("pos_embed"):
                parameter.normal_(0, 0.1)  # zero as initialised
            elif name.startswith("mask_decoder") and parameter.ndim > 1:
                parameter.mul_(1.5)
            elif name.startswith("prompt_encoder.point_embeddings"):
                parameter.mul_(3)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(sam.state_dict(), directory / "model.safetensors")
    return directory
