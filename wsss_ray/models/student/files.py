"""Encode and decode a student: a safetensors file with the spec as JSON in its metadata."""

from __future__ import annotations

from safetensors import SafetensorError
from safetensors.torch import load, save

from wsss_ray.errors import CheckpointError
from wsss_ray.models.state_files import differences
from wsss_ray.models.student.architectures import build_network, shapes_of
from wsss_ray.models.student.header import SPEC_KEY, read_spec
from wsss_ray.models.student.network import StudentNetwork


def encode_student(student: StudentNetwork) -> bytes:
    """Return the student as the bytes of one file. Equal students give equal bytes."""
    state = {name: value.detach().cpu().contiguous() for name, value in student.network.state_dict().items()}
    return save(state, metadata={SPEC_KEY: student.spec.to_json()})  # one key: safetensors does not order several


def decode_student(data: bytes, *, where: str = "the student's checkpoint") -> StudentNetwork:
    """Return the student of a file that `encode_student` wrote, on the CPU, ready for `predict`.

    Nothing in the file is executed. The tensors' shapes are checked against the spec before a network is allocated.

    Args:
        data: the bytes of the file.
        where: the file, for messages.

    Raises:
        CheckpointError: the bytes are not such a file.
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
        raise CheckpointError(f"{where} does not have the tensors of the network that it describes: {found}.")
    network = build_network(spec)
    network.load_state_dict(state)
    return StudentNetwork(spec, network).eval()
