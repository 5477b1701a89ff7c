"""Checkpoints of a training run: weights, optimizer and iteration, as one safetensors file, the last few kept."""

from __future__ import annotations

from dataclasses import dataclass

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from wsss_ray.storage.storage import Storage
from wsss_ray.training.saved import checkpoint_path, list_checkpoints

_WEIGHT = "weight"
_STEP = "step"
"""AdamW's count of steps, which PyTorch keeps on the CPU."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """The state after an iteration, on the CPU."""

    iteration: int
    """Updates that were made."""
    tensors: dict[str, Tensor]
    """Weights and buffers as `weight/<name>`, what the optimizer keeps of a parameter as `<key>/<name>`."""


def take_snapshot(iteration: int, student: nn.Module, optimizer: torch.optim.Optimizer) -> Snapshot:
    """Copy the state to the CPU."""
    tensors = {f"{_WEIGHT}/{name}": _copy(value) for name, value in student.state_dict().items()}
    for name, parameter in student.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{key}/{name}"] = _copy(value)
    return Snapshot(iteration=iteration, tensors=tensors)


def put_back(snapshot: Snapshot, student: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give a new student and its optimizer the state of a snapshot."""
    parameters = dict(student.named_parameters())
    weights = {}
    for path, value in snapshot.tensors.items():
        key, _, name = path.partition("/")
        if key == _WEIGHT:
            weights[name] = value
        else:
            device = "cpu" if key == _STEP else parameters[name].device
            optimizer.state[parameters[name]][key] = value.to(device)
    student.load_state_dict(weights)


def write_checkpoint(output: Storage, snapshot: Snapshot, *, keep: int) -> None:
    """Write a checkpoint, atomically, and remove all but the last `keep`."""
    data = safetensors.torch.save(snapshot.tensors, metadata={"iteration": str(snapshot.iteration)})
    output.write(checkpoint_path(snapshot.iteration), data)
    for iteration in list_checkpoints(output)[:-keep]:
        output.remove(checkpoint_path(iteration))


def read_checkpoint(output: Storage, iteration: int) -> Snapshot:
    """Read the checkpoint of an iteration.

    Raises:
        ValueError: it is damaged.
    """
    path = checkpoint_path(iteration)
    try:
        tensors = safetensors.torch.load(output.read(path))
    except SafetensorError as error:
        raise ValueError(
            f"{output.describe(path)} is damaged ({error}). Remove it: the run then goes on from the one before."
        ) from error
    return Snapshot(iteration=iteration, tensors=tensors)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()
