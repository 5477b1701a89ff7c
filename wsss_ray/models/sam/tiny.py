"""Build a SAM of any size from segment-anything's own classes and a small configuration.

The demo's checkpoint is a directory with `config.json` (the mapping `build_tiny_sam` takes) and
`model.safetensors` (float32, with the names of segment-anything's state dict).
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

TINY_SAM_CONFIG: dict[str, Any] = {
    "image_size": 224,
    "patch_size": 8,
    "embed_dim": 96,
    "depth": 4,
    "num_heads": 3,
    "global_attn_indexes": [3],
    "window_size": 7,
    "mlp_ratio": 3,
    "prompt_embed_dim": 80,
    "decoder_depth": 2,
    "decoder_mlp_dim": 192,
    "decoder_num_heads": 4,
    "iou_head_hidden_dim": 64,
    "mask_in_chans": 16,
    "pixel_mean": [123.675, 116.28, 103.53],
    "pixel_std": [58.395, 57.12, 57.375],
}
"""The configuration of the demo's segmenter."""


def build_tiny_sam(config: Mapping[str, Any]) -> Sam:
    """Return a SAM with random weights.

    Args:
        config: exactly the keys of `TINY_SAM_CONFIG`. `image_size` and `patch_size` are in pixels; low-resolution masks
            have `4 * image_size / patch_size` pixels a side.

    Raises:
        ValueError: a key is missing or unknown, or a size is not a multiple of another.
    """
    missing, unknown = TINY_SAM_CONFIG.keys() - config.keys(), config.keys() - TINY_SAM_CONFIG.keys()
    if missing or unknown:
        raise ValueError(
            f"tiny SAM configuration: missing keys {sorted(missing)}, unknown keys {sorted(unknown)}; "
            f"it has exactly the keys {sorted(TINY_SAM_CONFIG)}"
        )
    image_size, patch_size, prompt_dim = (
        config["image_size"],
        config["patch_size"],
        config["prompt_embed_dim"],
    )
    if image_size % patch_size:
        raise ValueError(
            f"tiny SAM configuration: image_size {image_size} is not a multiple of patch_size {patch_size}"
        )
    if config["embed_dim"] % config["num_heads"] or prompt_dim % 8:
        raise ValueError(
            "tiny SAM configuration: embed_dim must be a multiple of num_heads, prompt_embed_dim of 8; "
            f"got {config['embed_dim']}, {config['num_heads']}, {prompt_dim}"
        )
    grid = image_size // patch_size
    return Sam(
        image_encoder=ImageEncoderViT(
            img_size=image_size,
            patch_size=patch_size,
            embed_dim=config["embed_dim"],
            depth=config["depth"],
            num_heads=config["num_heads"],
            mlp_ratio=config["mlp_ratio"],
            out_chans=prompt_dim,
            qkv_bias=True,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=config["window_size"],
            global_attn_indexes=tuple(config["global_attn_indexes"]),
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=prompt_dim,
            image_embedding_size=(grid, grid),
            input_image_size=(image_size, image_size),
            mask_in_chans=config["mask_in_chans"],
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=config["decoder_depth"],
                embedding_dim=prompt_dim,
                mlp_dim=config["decoder_mlp_dim"],
                num_heads=config["decoder_num_heads"],
            ),
            transformer_dim=prompt_dim,
            iou_head_depth=3,
            iou_head_hidden_dim=config["iou_head_hidden_dim"],
        ),
        pixel_mean=list(config["pixel_mean"]),
        pixel_std=list(config["pixel_std"]),
    )
