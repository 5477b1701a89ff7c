"""Files of checkpoints: one safetensors file each with its digest beside it. Needs no PyTorch."""

from __future__ import annotations

import hashlib
import re

from wsss_ray.storage.storage import Storage

FOLDER = "checkpoints"
_NAME = re.compile(r"iteration-(\d{8,})\.safetensors")


def checkpoint_path(iteration: int) -> str:
    """Return the path of an iteration's checkpoint below the run directory."""
    return f"{FOLDER}/iteration-{iteration:08d}.safetensors"


def digest_path(iteration: int) -> str:
    """Return the path of the file that holds the SHA-256 of a checkpoint."""
    return f"{checkpoint_path(iteration)}.sha256"


def list_checkpoints(output: Storage) -> list[int]:
    """Return the iterations of the checkpoints that exist, ascending."""
    matches = [_NAME.fullmatch(name) for name in output.list(FOLDER)]
    return sorted(int(match.group(1)) for match in matches if match)


def write_checkpoint_file(output: Storage, iteration: int, data: bytes, *, keep: int) -> None:
    """Write a checkpoint atomically, its digest first, and remove all but the last `keep`."""
    output.write(digest_path(iteration), f"{hashlib.sha256(data).hexdigest()}\n".encode())
    output.write(checkpoint_path(iteration), data)
    for old in list_checkpoints(output)[:-keep]:
        output.remove(checkpoint_path(old))
        output.remove(digest_path(old))


def read_checkpoint_file(output: Storage, iteration: int) -> bytes:
    """Return the bytes of a checkpoint. A checkpoint without a digest file is not verified.

    Raises:
        ValueError: the bytes do not have the digest.
    """
    data = output.read(checkpoint_path(iteration))
    try:
        expected = output.read(digest_path(iteration)).decode(errors="replace").strip()
    except FileNotFoundError:
        return data
    if hashlib.sha256(data).hexdigest() != expected:
        raise ValueError(damage_text(output, iteration, "it does not have the digest in the file beside it"))
    return data


def damage_text(output: Storage, iteration: int, reason: str) -> str:
    """Return the message for a checkpoint that cannot be used."""
    return (
        f"{output.describe(checkpoint_path(iteration))} is damaged: {reason}. Remove it; the run then continues from "
        "the checkpoint before it."
    )
