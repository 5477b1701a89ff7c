"""Load the tokenizer, the image processor and the network of a detector."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForZeroShotObjectDetection,
    AutoProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from wsss_ray.config import DetectorConfig
from wsss_ray.models.hub import model_directory

MODEL_TYPES = ("grounding-dino", "mm-grounding-dino")
MAX_TEXT_TOKENS = 256
"""Largest number of tokens in a prompt of the published detectors."""


def load_tokenizer(config: DetectorConfig, directory: str | None = None) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the detector. It needs no weights and is enough to build prompts.

    Its `model_max_length` is the largest number of tokens in a prompt.
    """
    return load_processor(model_directory(config, directory, weights=False)).tokenizer


def load_processor(directory: Path) -> ProcessorMixin:
    """Return the tokenizer and image processor of a directory.

    The tokenizer's `model_max_length` is the largest number of tokens in a prompt.
    """
    settings = AutoConfig.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    if settings.model_type not in MODEL_TYPES:
        raise ValueError(
            f"{directory} has a {settings.model_type} model; the detector takes {' or '.join(MODEL_TYPES)}."
        )
    processor = AutoProcessor.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    longest = min(MAX_TEXT_TOKENS, settings.max_text_len, processor.tokenizer.model_max_length)
    processor.tokenizer.model_max_length = longest
    return processor


def load_network(directory: Path) -> PreTrainedModel:
    """Return the network in float32 on the CPU.

    Raises:
        ValueError: the weights are damaged or incomplete, or the text attention would ignore the mask of phrases.
    """
    try:
        network, loaded = AutoModelForZeroShotObjectDetection.from_pretrained(
            directory,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except SafetensorError as error:
        raise ValueError(f"the weights in {directory} cannot be read ({error}): download them again.") from error
    if loaded["missing_keys"]:
        names = sorted(loaded["missing_keys"])
        raise ValueError(
            f"the weights in {directory} lack {len(names)} of the network's tensors ({', '.join(names[:3])}, ...): "
            "they would stay random. Use the checkpoint that belongs to this config.json."
        )
    attention = network.model.text_backbone.config._attn_implementation
    if attention != "sdpa":  # eager silently adds the boolean mask of phrases to the scores
        raise ValueError(
            f"the text attention of {directory} is {attention!r}, which changes boxes: remove attn_implementation "
            "from its config.json."
        )
    return network.eval()
