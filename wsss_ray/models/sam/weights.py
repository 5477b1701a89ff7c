"""Find SAM's weights on this machine, or say how to get them. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wsss_ray.addresses import is_uri, local_path
from wsss_ray.config import SegmenterConfig
from wsss_ray.errors import CheckpointError

DEMO_WEIGHTS = Path(__file__).resolve().parents[2] / "demo" / "weights" / "segmenter"
"""The tiny model that the package ships: `config.json` and `model.safetensors`."""
DOWNLOADS = "https://dl.fbaipublicfiles.com/segment_anything/"


@dataclass(frozen=True, kw_only=True)
class OfficialFile:
    """A checkpoint that its authors publish below `DOWNLOADS`."""

    name: str
    """File name."""
    sha256: str
    """SHA-256 in hexadecimal digits."""

    def __str__(self) -> str:
        """Return the address and the digest, for messages."""
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


def checkpoint_path(config: SegmenterConfig) -> Path:
    """Return the local file of the configured weights; for `tiny` the directory that holds its two files.

    Raises:
        CheckpointError: there is no such file, or the configuration names a URI. A job copies the file of a URI first
            and passes the local copy to the segmenter.
    """
    if config.checkpoint is None:
        if config.model != "tiny":
            raise CheckpointError(f"segmenter.checkpoint is not set. {_advice(config.model)}")
        return existing_checkpoint(config.model, DEMO_WEIGHTS)
    if is_uri(config.checkpoint):
        raise CheckpointError(
            f"segmenter.checkpoint {config.checkpoint} is not on this machine: copy the file and give the path of the "
            "copy (the labelling job does this itself)."
        )
    return existing_checkpoint(config.model, local_path(config.checkpoint))


def existing_checkpoint(model: str, path: Path) -> Path:
    """Return the path to load `model` from, given the path that a user or the package names.

    Raises:
        CheckpointError: there is no usable file at the path.
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
    """Return the files of a checkpoint path: the weights, and for `tiny` its configuration."""
    if model != "tiny":
        return (path,)
    if path.is_dir():
        return path / "model.safetensors", path / "config.json"
    return path, path.parent / "config.json"


def _advice(model: str) -> str:
    if model == "tiny":
        return (
            "The model tiny needs a directory with config.json and model.safetensors; leave segmenter.checkpoint unset "
            "for the one that the package ships."
        )
    return f"Download {OFFICIAL_FILES[model]} and set segmenter.checkpoint to its path."
