"""Building a SAM and filling it with the weights of a file that is trusted with nothing but tensors."""

from __future__ import annotations

import itertools
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam
from torch import Tensor

from wsss_ray.models.sam_weights import OFFICIAL_FILES, CheckpointError, files_of
from wsss_ray.models.tiny_sam import build_tiny_sam

ENCODER_WIDTHS = {1280: "vit_h", 1024: "vit_l", 768: "vit_b"}


def load_sam(model: str, path: Path) -> Sam:
    """Build `model` (vit_h, vit_l, vit_b, tiny) with the weights of a path from `sam_weights`.

    Returns it on the CPU, in float32, ready for inference only. Weights of a .pth stay mapped from the file, so that
    the processes of a machine share one copy. Raises CheckpointError for a file that is damaged, holds anything but
    tensors, or belongs to another model.
    """
    weights, *configuration = files_of(model, path)
    with torch.device("meta"):  # initialising the large models would take seconds
        sam = build_tiny_sam(_read_configuration(configuration[0])) if configuration else sam_model_registry[model]()
    state = {name: value.float() for name, value in _read_state(weights).items()}
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


def _read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors file, or of what torch.save wrote, by name."""
    damaged = f"{path} cannot be read as a checkpoint: it is damaged or of another format."
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{damaged} ({error})") from error
    try:
        # only files in torch's zip format can be mapped
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged or holds other objects than tensors, which may run code when read. Take the model's "
            "state dict alone (torch.save(model.state_dict(), ...))."
        ) from error
    except (RuntimeError, EOFError) as error:
        raise CheckpointError(f"{damaged} ({error})") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        keys = ", ".join(map(str, list(state)[:5])) if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(
            f"{path} is no state dict (name: tensor), it holds: {keys}. If it is a training checkpoint, save the state "
            "dict inside it to a file of its own."
        )
    return state


def _check_fit(sam: Sam, state: Mapping[str, Tensor], model: str, path: Path) -> None:
    expected = sam.state_dict()
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    reshaped = [name for name, value in expected.items() if name in state and state[name].shape != value.shape]
    if not (missing or unexpected or reshaped):
        return
    differences = "; ".join(
        f"{len(names)} {kind} ({', '.join(names[:2])}{', ...' if len(names) > 2 else ''})"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if names
    )
    looks_like = _looks_like(state)
    advice = f"set segmenter.model: {looks_like}, or " if looks_like in OFFICIAL_FILES else ""
    source = OFFICIAL_FILES.get(model, "the weights that its config.json describes")
    raise CheckpointError(
        f"{path} does not fit the segmenter {model}: {differences}. It looks like {looks_like}: {advice}use {source}."
    )


def _looks_like(state: Mapping[str, Tensor]) -> str:
    if any(name.startswith("vision_encoder.") for name in state):
        return "a SAM in the transformers library's form, which this segmenter does not read"
    position = state.get("image_encoder.pos_embed")
    if position is None or position.ndim != 4:
        return "no SAM of segment-anything"
    width = position.shape[-1]
    known = ENCODER_WIDTHS.get(width)
    expected_blocks = {"vit_h": 32, "vit_l": 24, "vit_b": 12}.get(known or "")
    blocks = len({name.split(".")[2] for name in state if name.startswith("image_encoder.blocks.")})
    if known is None or blocks != expected_blocks:
        return f"a SAM whose encoder has width {width} and {blocks} blocks"
    if any(name.startswith("mask_decoder.hf_") for name in state):
        return f"HQ-SAM of size {known}, which has another mask decoder"
    return known
