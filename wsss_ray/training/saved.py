"""Paths of the checkpoints in a training's output. Needs no PyTorch."""

from __future__ import annotations

import re

from wsss_ray.storage.storage import Storage

FOLDER = "checkpoints"
_NAME = re.compile(r"iteration-(\d{8,})\.safetensors")


def checkpoint_path(iteration: int) -> str:
    """Return the path of the checkpoint after an iteration."""
    return f"{FOLDER}/iteration-{iteration:08d}.safetensors"


def list_checkpoints(output: Storage) -> list[int]:
    """Return the iterations of the existing checkpoints, ascending."""
    matches = [_NAME.fullmatch(name) for name in output.list(FOLDER)]
    return sorted(int(match.group(1)) for match in matches if match)
