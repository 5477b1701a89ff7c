"""Checkpoints of a training: weights, optimizer state and iteration as one safetensors file."""

from __future__ import annotations

from dataclasses import dataclass

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from wsss_ray.storage.storage import Storage
from wsss_ray.training.checkpoint_files import damage_text, read_checkpoint_file, write_checkpoint_file

_WEIGHT = "weight"
_STEP = "step"
"""AdamW's count of steps, which PyTorch keeps on the CPU."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """The state after an iteration, on the CPU."""

    iteration: int
    """Finished updates."""
    tensors: dict[str, Tensor]
    """Weights and buffers as `weight/<name>`, the optimizer's state of a parameter as `<key>/<name>`."""


def take_snapshot(iteration: int, student: nn.Module, optimizer: torch.optim.Optimizer) -> Snapshot:
    """Copy the state to the CPU."""
    tensors = {f"{_WEIGHT}/{name}": _copy(value) for name, value in student.state_dict().items()}
    for name, parameter in student.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{key}/{name}"] = _copy(value)
    return Snapshot(iteration=iteration, tensors=tensors)


def restore_snapshot(snapshot: Snapshot, student: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Set a new student and its optimizer to the state of a snapshot."""
    parameters = dict(student.named_parameters())
    weights = {}
    for path, value in snapshot.tensors.items():
        key, _, name = path.partition("/")
        if key == _WEIGHT:
            weights[name] = value
        else:
            parameter = parameters[name]
            optimizer.state[parameter][key] = value if key == _STEP else _like(parameter, value)
    student.load_state_dict(weights)


def write_checkpoint(output: Storage, snapshot: Snapshot, *, keep: int) -> None:
    """Write a checkpoint, atomically, and remove all but the last `keep`."""
    data = safetensors.torch.save(snapshot.tensors, metadata={"iteration": str(snapshot.iteration)})
    write_checkpoint_file(output, snapshot.iteration, data, keep=keep)


def read_checkpoint(output: Storage, iteration: int) -> Snapshot:
    """Read the checkpoint of an iteration and verify its digest.

    Raises:
        ValueError: it is damaged.
    """
    data = read_checkpoint_file(output, iteration)
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise ValueError(damage_text(output, iteration, str(error))) from error
    return Snapshot(iteration=iteration, tensors=tensors)


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """Return the state of a parameter on its device and in its memory order, which the fused optimizers need.

    A checkpoint holds all tensors in plain order: safetensors takes no other.
    """
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _copy(tensor: Tensor) -> Tensor:
    """Copy a tensor to the CPU, in plain order."""
    return tensor.detach().to("cpu", copy=True).contiguous()
