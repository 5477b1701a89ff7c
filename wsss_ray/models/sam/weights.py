"""Where SAM's weights lie on this machine, and what to do when they do not. Needs no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from wsss_ray.config import SegmenterConfig

DEMO_WEIGHTS = Path(__file__).resolve().parents[2] / "demo" / "weights" / "segmenter"
"""The tiny model that the package ships: `config.json` and `model.safetensors`."""
DOWNLOADS = "https://dl.fbaipublicfiles.com/segment_anything/"


@dataclass(frozen=True, kw_only=True)
class OfficialFile:
    """A checkpoint as its authors publish it below `DOWNLOADS`."""

    name: str
    """File name."""
    sha256: str
    """SHA-256 in hexadecimal digits."""

    def __str__(self) -> str:
        """Where to get it, and how to know it."""
        return f"{DOWNLOADS}{self.name} (SHA-256 {self.sha256})"


OFFICIAL_FILES = {
    "vit_h": OfficialFile(
        name="sam_vit_h_4b8939.pth", sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"
    ),
    "vit_l": OfficialFile(
        name="sam_vit_l_0b3195.pth", sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"
    ),
    "vit_b": OfficialFile(
        name="sam_vit_b_01ec64.pth", sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"
    ),
}


class CheckpointError(ValueError):
    """Weights that are missing, damaged or of another model; the text says what to do."""


def checkpoint_path(config: SegmenterConfig) -> Path:
    """Local file of the configured weights; for `tiny` the directory that holds `config.json` and `model.safetensors`.

    Raises CheckpointError when there is none, or when the configuration names a URI (jobs fetch those and hand the
    local copy to `Segmenter`).
    """
    if config.checkpoint is None:
        if config.model != "tiny":
            raise CheckpointError(f"segmenter.checkpoint is not set. {_advice(config.model)}")
        return existing_checkpoint(config.model, DEMO_WEIGHTS)
    local = config.checkpoint.removeprefix("file://")
    if "://" in local:
        raise CheckpointError(
            f"segmenter.checkpoint {config.checkpoint} is not on this machine: fetch the file and name its local copy "
            "(the label job does so itself)."
        )
    return existing_checkpoint(config.model, Path(local).expanduser())


def existing_checkpoint(model: str, path: Path) -> Path:
    """The path to load `model` from, given the one that a user or the package names.

    Raises CheckpointError when nothing usable is there.
    """
    if not path.exists():
        raise CheckpointError(f"there is no segmenter checkpoint at {path}. {_advice(model)}")
    if model == "tiny" and path.name == "model.safetensors":
        path = path.parent
    if model != "tiny" and path.is_dir():
        raise CheckpointError(f"the segmenter checkpoint {path} is a directory, not a file. {_advice(model)}")
    for file in files_of(model, path):
        if not file.is_file():
            raise CheckpointError(f"the segmenter checkpoint {path} lacks {file}. {_advice(model)}")
    return path


def files_of(model: str, path: Path) -> tuple[Path, ...]:
    """The files behind a checkpoint path: the weights first, and the configuration of a `tiny` one."""
    if model != "tiny":
        return (path,)
    if path.is_dir():
        return path / "model.safetensors", path / "config.json"
    return path, path.parent / "config.json"


def check_digest(path: Path, sha256: str) -> None:
    """Raise CheckpointError unless the file has this SHA-256 (hexadecimal digits). Reads the whole file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    if digest.hexdigest() != sha256.lower():
        raise CheckpointError(
            f"{path} has SHA-256 {digest.hexdigest()}, not segmenter.sha256 {sha256.lower()}: another file, or a "
            "damaged one. Fetch it again, or correct the digest."
        )


def _advice(model: str) -> str:
    if model == "tiny":
        return (
            "The model tiny needs a directory with config.json and model.safetensors; leave segmenter.checkpoint unset "
            "for the one that the package ships."
        )
    return f"Fetch {OFFICIAL_FILES[model]} and set segmenter.checkpoint to its path."
