"""Checkpoints of a training run: weights, momentum and the iteration, as one safetensors file, the last few kept."""

from __future__ import annotations

import re
from dataclasses import dataclass

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from wsss_ray.data.storage import Storage

FOLDER = "checkpoints"
_NAME = re.compile(r"iteration-(\d{8,})\.safetensors")
_WEIGHT, _MOMENTUM = "weight/", "momentum/"


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """The state after an iteration, on the CPU."""

    iteration: int
    """Updates that were made."""
    tensors: dict[str, Tensor]
    """Weights and buffers as `weight/<name>`, momentum of the trained parameters as `momentum/<name>`."""


def take_snapshot(iteration: int, student: nn.Module, optimizer: torch.optim.Optimizer) -> Snapshot:
    """Copy the state to the CPU."""
    tensors = {_WEIGHT + name: _copy(value) for name, value in student.state_dict().items()}
    for name, parameter in student.named_parameters():
        momentum = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if momentum is not None:
            tensors[_MOMENTUM + name] = _copy(momentum)
    return Snapshot(iteration=iteration, tensors=tensors)


def put_back(snapshot: Snapshot, student: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give a new student and its optimizer the state of a snapshot."""
    weights = _with_prefix(snapshot.tensors, _WEIGHT)
    student.load_state_dict(weights)
    momentum = _with_prefix(snapshot.tensors, _MOMENTUM)
    for name, parameter in student.named_parameters():
        if name in momentum:
            optimizer.state[parameter]["momentum_buffer"] = momentum[name].to(parameter.device)


def write_checkpoint(output: Storage, snapshot: Snapshot, *, keep: int) -> None:
    """Write a checkpoint, atomically, and remove all but the last `keep`."""
    data = safetensors.torch.save(snapshot.tensors, metadata={"iteration": str(snapshot.iteration)})
    output.write(f"{FOLDER}/{_file_name(snapshot.iteration)}", data)
    for iteration in list_checkpoints(output)[:-keep]:
        output.remove(f"{FOLDER}/{_file_name(iteration)}")


def list_checkpoints(output: Storage) -> list[int]:
    """Iterations of the checkpoints that are there, ascending."""
    matches = [_NAME.fullmatch(name) for name in output.list(FOLDER)]
    return sorted(int(match.group(1)) for match in matches if match)


def read_checkpoint(output: Storage, iteration: int) -> Snapshot:
    """Read the checkpoint of an iteration.

    Raises:
        ValueError: it is damaged.
    """
    path = f"{FOLDER}/{_file_name(iteration)}"
    try:
        tensors = safetensors.torch.load(output.read(path))
    except SafetensorError as error:
        raise ValueError(
            f"{output.describe(path)} is damaged ({error}). Remove it: the run then goes on from the one before."
        ) from error
    return Snapshot(iteration=iteration, tensors=tensors)


def _file_name(iteration: int) -> str:
    return f"iteration-{iteration:08d}.safetensors"


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
