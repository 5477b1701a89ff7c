"""Build a SAM and load its weights. Nothing in the file is executed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam
from torch import Tensor

from wsss_ray.errors import CheckpointError
from wsss_ray.models.sam.tiny import build_tiny_sam
from wsss_ray.models.sam.weights import OFFICIAL_FILES, files_of
from wsss_ray.models.state_files import differences, read_state

ENCODER_WIDTHS = {1280: "vit_h", 1024: "vit_l", 768: "vit_b"}
"""Model by the channels of its image encoder."""


def check_sam(model: str, path: Path, *, digest_given: bool = False) -> None:
    """Check that a file holds the weights of `model`, without loading them.

    Raises:
        CheckpointError: the file is damaged, or belongs to another model; errors as `load_sam`.
    """
    weights, *configuration = files_of(model, path)
    with torch.device("meta"):
        sam = build_tiny_sam(_read_configuration(configuration[0])) if configuration else sam_model_registry[model]()
    _check_fit(sam, read_state(weights, digest_given=digest_given), model, weights)


def load_sam(model: str, path: Path, *, digest_given: bool = False) -> Sam:
    """Return the model with its weights on the CPU, in float32, for inference only.

    Weights of a .pth file stay memory-mapped, so that the processes of a machine share one copy.

    Args:
        model: vit_h, vit_l, vit_b or tiny.
        path: the checkpoint, as `weights.existing_checkpoint` returns it.
        digest_given: whether the file was checked against a SHA-256; see `read_state`.

    Raises:
        CheckpointError: the file is damaged, holds other objects than tensors, belongs to another model, or needs a
            digest.
    """
    weights, *configuration = files_of(model, path)
    with torch.device("meta"):  # initializing the large models would take seconds
        sam = build_tiny_sam(_read_configuration(configuration[0])) if configuration else sam_model_registry[model]()
    state = {name: value.float() for name, value in read_state(weights, digest_given=digest_given).items()}
    _check_fit(sam, state, model, weights)
    sam.load_state_dict(state, strict=True, assign=True)
    tensors = itertools.chain(sam.named_parameters(), sam.named_buffers())
    left = [name for name, tensor in tensors if tensor.is_meta]
    assert not left, left
    return sam.eval().requires_grad_(False)


def _read_configuration(path: Path) -> Mapping[str, Any]:
    try:
        configuration = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(configuration, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not a {type(configuration).__name__}.")
    return configuration


def _check_fit(sam: Sam, state: Mapping[str, Tensor], model: str, path: Path) -> None:
    found = differences(sam.state_dict(), state)
    if not found:
        return
    looks_like = _looks_like(state)
    advice = f"set segmenter.model: {looks_like}, or " if looks_like in OFFICIAL_FILES else ""
    source = OFFICIAL_FILES.get(model, "the weights that its config.json describes")
    raise CheckpointError(
        f"{path} does not fit the segmenter {model}: {found}. It looks like {looks_like}: {advice}use {source}."
    )


def _looks_like(state: Mapping[str, Tensor]) -> str:
    """Return the model that a state dict seems to belong to, in words or as a name of OFFICIAL_FILES."""
    if any(name.startswith("vision_encoder.") for name in state):
        return "a SAM in the format of the transformers library, which this segmenter does not read"
    position = state.get("image_encoder.pos_embed")
    if position is None or position.ndim != 4:
        return "a model other than SAM of segment-anything"
    width = position.shape[-1]
    known = ENCODER_WIDTHS.get(width)
    expected_blocks = {"vit_h": 32, "vit_l": 24, "vit_b": 12}.get(known or "")
    blocks = len({name.split(".")[2] for name in state if name.startswith("image_encoder.blocks.")})
    if known is None or blocks != expected_blocks:
        return f"a SAM whose encoder has width {width} and {blocks} blocks"
    if any(name.startswith("mask_decoder.hf_") for name in state):
        return f"HQ-SAM of size {known}, which has another mask decoder"
    return known
