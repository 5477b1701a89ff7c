"""Read the spec of a student's file without its weights. Needs no PyTorch."""

from __future__ import annotations

import json
from typing import Any

from wsss_ray.errors import CheckpointError
from wsss_ray.models.student.spec import StudentSpec

STUDENT_FILE = "student.safetensors"
"""Name of the trained student in the output of a training."""
STUDENT_DIGEST_FILE = f"{STUDENT_FILE}.sha256"
"""Name of the file beside it that holds its SHA-256."""
SPEC_KEY = "student"
"""Key of the spec in the file's metadata."""


def read_spec(data: bytes, *, where: str = "the student's checkpoint") -> StudentSpec:
    """Return the spec of a student's file.

    Args:
        data: the file, or at least its header.
        where: the file, for messages.

    Raises:
        CheckpointError: the bytes are not a student's file.
    """
    header = _header(data, where)
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or not isinstance(metadata.get(SPEC_KEY), str):
        raise CheckpointError(
            f"{where} has tensors but no description of a student. Of the files of a training only student.safetensors "
            "has one; its checkpoints only serve to resume it. Other weights can start a training: see student.init."
        )
    try:
        return StudentSpec.from_json(metadata[SPEC_KEY])
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from error


def _header(data: bytes, where: str) -> dict[str, Any]:
    """Return the header of a safetensors file: its length in 8 bytes, little-endian, then a JSON object."""
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length]) if 8 + length <= len(data) else None
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise CheckpointError(f"{where} is not a safetensors file, or only a part of one.")
    return header
