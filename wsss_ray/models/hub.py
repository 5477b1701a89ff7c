"""Find the files of a model: the packaged demo, a local directory, or a commit of a hub repository.

This module imports no network, so that the driver of a job can use it. `detector/files.py` loads the files.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from huggingface_hub import snapshot_download

from wsss_ray.addresses import is_hub_id, is_uri, local_path
from wsss_ray.config import DetectorConfig

DEMO_DIRECTORY = Path(__file__).parents[1] / "demo" / "weights" / "detector"
"""The packaged tiny detector, model "demo"."""

_TEXT_FILES = ("*.json", "*.txt", "*.model")
_WEIGHT_FILES = ("model*.safetensors",)


def model_directory(config: DetectorConfig, directory: str | None = None, *, weights: bool = True) -> Path:
    """Return the local directory of the detector that `config.model` names.

    Hub repositories come from the local cache or are downloaded at the commit `config.revision`.

    Args:
        config: the detector's section of a configuration.
        directory: local copy of the files of a model that is given as a URI.
        weights: whether the weights are needed; False: the text files alone are downloaded.

    Raises:
        ValueError: the model does not exist or is incomplete; the text says what to download.
    """
    if directory is not None:
        return _checked(Path(directory), weights)
    if is_uri(config.model):
        raise ValueError(
            f"detector.model {config.model} is a URI: copy it to a local directory first (the labelling job does) "
            "and pass that directory."
        )
    path = DEMO_DIRECTORY if config.model == "demo" else local_path(config.model)
    if path.is_dir() or config.model == "demo":
        if config.revision is not None:
            raise ValueError(
                f"detector.revision is {config.revision!r}, but detector.model {config.model} is a local directory, "
                "which has no revisions: leave it unset."
            )
        return _checked(path, weights)
    if not is_hub_id(config.model):
        raise ValueError(
            f"detector.model {config.model!r} is neither a directory on this machine, nor a hub id (owner/name), nor "
            '"demo".'
        )
    return hub_directory(config.model, hub_commit(config), missing=partial(_missing, weights=weights), weights=weights)


def is_local(config: DetectorConfig) -> bool:
    """Return whether the model is the packaged demo or a directory of this machine."""
    return config.model == "demo" or local_path(config.model).is_dir()


def hub_commit(config: DetectorConfig) -> str:
    """Return the commit at which a hub model is loaded.

    Raises:
        ValueError: the configuration gives none.
    """
    commit = config.revision
    if commit is None or not re.fullmatch(r"[0-9a-f]{40}", commit):
        given = "there is no such directory" if commit is None else f"revision {commit!r} is not a full commit"
        raise ValueError(
            f"detector.model {config.model}: {given}, and a hub model needs detector.revision, the 40 hex digits "
            "of a commit, so that labels are reproducible. Find it at "
            f"https://huggingface.co/{config.model}/commits/main (the copy button of the newest commit)."
        )
    return commit


def hub_directory(repository: str, commit: str, *, missing: Callable[[Path], list[str]], weights: bool = True) -> Path:
    """Return the local directory of a hub model at a commit: from the hub's cache, else downloaded.

    Args:
        repository: the hub id, owner/name.
        commit: the commit's 40 hex digits.
        missing: returns the names of what a directory lacks.
        weights: whether the weights are needed; False: the text files alone are downloaded.

    Raises:
        ValueError: it is in neither, or incomplete; says what to download.
    """
    patterns = [*_TEXT_FILES, *(_WEIGHT_FILES if weights else ())]
    cause: OSError | None = None
    for cache_only in (True, False):
        try:
            found = snapshot_download(repository, revision=commit, allow_patterns=patterns, local_files_only=cache_only)
        except OSError as error:  # not in the cache, or no network, no such commit or no access
            cause, reason = error, str(error).splitlines()[0]
            continue
        lacking = missing(Path(found))
        if not lacking:
            return Path(found)
        reason = f"{found} lacks {' and '.join(lacking)}"
    raise ValueError(
        f"{repository} at commit {commit} is not in the local cache and cannot be downloaded ({reason}). On a machine "
        f"with a network, run\n  hf download {repository} --revision {commit} --local-dir DIRECTORY\n"
        "copy DIRECTORY to this machine and name it instead."
    ) from cause


def _checked(directory: Path, weights: bool) -> Path:
    if not directory.is_dir():
        raise ValueError(f"the detector's directory {directory} does not exist.")
    missing = _missing(directory, weights=weights)
    if missing:
        raise ValueError(
            f"the detector's directory {directory} lacks {' and '.join(missing)}. Weights are read from safetensors "
            "only; AutoModelForZeroShotObjectDetection.save_pretrained and AutoProcessor.save_pretrained write "
            "all of these files."
        )
    return directory


def _needed() -> dict[str, tuple[str, ...]]:
    """Return the files that a directory must have: a name for messages, and patterns of which one must match."""
    return {
        "config.json": ("config.json",),
        "preprocessor_config.json": ("preprocessor_config.json", "processor_config.json"),
        "tokenizer.json": ("tokenizer.json", "vocab.txt"),
        "model.safetensors": ("model.safetensors", "model-00001-of-*.safetensors"),
    }


def _missing(directory: Path, *, weights: bool) -> list[str]:
    """Return the names of the files that a directory lacks."""
    return [
        name
        for name, patterns in _needed().items()
        if (weights or name != "model.safetensors")
        and not any(path.is_file() for pattern in patterns for path in directory.glob(pattern))
    ]
