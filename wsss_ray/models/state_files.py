"""Read the tensors of a checkpoint file by name. Nothing in the file is executed."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.torch_version import TorchVersion

from wsss_ray.errors import CheckpointError

SAFE_TORCH = TorchVersion("2.10")
"""From this version on `weights_only` is safe. Before, a crafted file could corrupt memory (CVE-2026-24747)."""


def read_state(path: Path, *, digest_given: bool = False) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file, or of a file by torch.save, by name.

    Args:
        path: the file.
        digest_given: whether the file was checked against a SHA-256 of the user or the publisher.

    Raises:
        CheckpointError: the file is damaged or holds other objects than tensors; or it is a torch.save file without a
            digest, and this version of torch reads such files unsafely.
    """
    damaged = f"{path} cannot be read as a checkpoint: it is damaged or of another format."
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{damaged} ({error})") from error
    if not digest_given and TorchVersion(torch.__version__) < SAFE_TORCH:
        raise CheckpointError(
            f"{path} is refused: in torch {torch.__version__} a crafted file of this kind can run code "
            "(CVE-2026-24747). Give the SHA-256 of a file that you trust (segmenter.sha256, student.sha256), use "
            "torch 2.10 or later, or use a .safetensors file."
        )
    try:
        # only files in torch's zip format can be memory-mapped
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged or holds other objects than tensors, which could run code when read. Save the "
            "model's state dict only (torch.save(model.state_dict(), ...))."
        ) from error
    except (RuntimeError, EOFError) as error:
        raise CheckpointError(f"{damaged} ({error})") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        keys = ", ".join(map(str, list(state)[:5])) if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(
            f"{path} is not a state dict (name: tensor), it holds: {keys}. If it is a training checkpoint, save the "
            "state dict inside it to a separate file."
        )
    return state


def differences(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Return how names and shapes of a state differ from the expected ones, in words; empty where they are equal."""
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    reshaped = [name for name, value in expected.items() if name in state and state[name].shape != value.shape]
    return "; ".join(
        f"{len(names)} {kind} ({', '.join(names[:2])}{', ...' if len(names) > 2 else ''})"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if names
    )
