"""A student as bytes and back: safetensors, with the spec as JSON in the metadata."""

from __future__ import annotations

import json
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from wsss_ray.models.sam.weights import CheckpointError
from wsss_ray.models.state_files import differences
from wsss_ray.models.student.architectures import build_network, shapes_of
from wsss_ray.models.student.network import StudentNetwork
from wsss_ray.models.student.spec import StudentSpec

_KEY = "student"


def encode_student(student: StudentNetwork) -> bytes:
    """The student as one file: whatever `decode_student` needs. Equal students give equal bytes."""
    state = {name: value.detach().cpu().contiguous() for name, value in student.network.state_dict().items()}
    return save(state, metadata={_KEY: student.spec.to_json()})  # one key: safetensors does not order several


def decode_student(data: bytes, *, where: str = "the student's checkpoint") -> StudentNetwork:
    """The student of a file that `encode_student` wrote, on the CPU, ready for `predict`.

    `where` names the file in errors. Raises CheckpointError (a ValueError) for anything else: nothing in the file is
    executed, and nothing is allocated before the tensors' shapes are seen to fit the description.
    """
    spec = read_spec(data, where=where)
    try:
        state = load(data)
    except SafetensorError as error:
        raise CheckpointError(f"{where} is damaged or incomplete ({error}).") from error
    try:
        found = differences(shapes_of(spec), state)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{where} describes a network that cannot be built: {error}") from error
    if found:
        raise CheckpointError(f"{where} does not hold the network that it describes: {found}.")
    network = build_network(spec)
    network.load_state_dict(state)
    return StudentNetwork(spec, network).eval()


def read_spec(data: bytes, *, where: str = "the student's checkpoint") -> StudentSpec:
    """The spec alone; the file's first bytes, as far as its header goes, suffice."""
    header = _header(data, where)
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or not isinstance(metadata.get(_KEY), str):
        raise CheckpointError(
            f"{where} holds tensors but no description of a student. Of a training's files only student.safetensors "
            "has one (its checkpoints are for going on); other weights can start a training: see student.init."
        )
    try:
        return StudentSpec.from_json(metadata[_KEY])
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from error


def _header(data: bytes, where: str) -> dict[str, Any]:
    """The JSON object at the start of a safetensors file: its length as 8 bytes, least first, then the text."""
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length]) if 8 + length <= len(data) else None
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise CheckpointError(f"{where} is no safetensors file, or only a part of one.")
    return header
