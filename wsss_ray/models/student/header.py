"""Read what a student's file says about its network, without its weights. Needs no PyTorch."""

from __future__ import annotations

import json
from typing import Any

from wsss_ray.models.sam.weights import CheckpointError
from wsss_ray.models.student.spec import StudentSpec

SPEC_KEY = "student"
"""Key of the spec in the file's metadata."""


def read_spec(data: bytes, *, where: str = "the student's checkpoint") -> StudentSpec:
    """Return the spec alone; the bytes of the file's header suffice."""
    header = _header(data, where)
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or not isinstance(metadata.get(SPEC_KEY), str):
        raise CheckpointError(
            f"{where} holds tensors but no description of a student. Of a training's files only student.safetensors "
            "has one (its checkpoints are for going on); other weights can start a training: see student.init."
        )
    try:
        return StudentSpec.from_json(metadata[SPEC_KEY])
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from error


def _header(data: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object at the start of a safetensors file: its length as 8 bytes, least first, then the text."""
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length]) if 8 + length <= len(data) else None
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise CheckpointError(f"{where} is no safetensors file, or only a part of one.")
    return header
