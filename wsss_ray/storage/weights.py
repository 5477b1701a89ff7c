"""Weights by path or URI: one verified copy on each node, and a digest that identifies them."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import logging
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wsss_ray.addresses import is_uri, local_path, refuse_credentials, shown
from wsss_ray.config import StorageConfig
from wsss_ray.storage.errors import StorageError
from wsss_ray.storage.redaction import masked
from wsss_ray.storage.storage import Storage

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 2**22
_FEWEST_DIGITS = 8
_MODEL_FILES = (".json", ".txt", ".safetensors", ".model")


def cache_directory() -> Path:
    """Return this node's folder of weights and digests: WSSS_RAY_CACHE, else one in XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get("WSSS_RAY_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "wsss_ray"


def fetch_file(uri: str, *, sha256: str | None, config: StorageConfig) -> Path:
    """Return the local path of a file of weights; a remote one is copied to the node's cache once.

    Args:
        uri: local path, `s3://` (any fsspec URI) or `https://`.
        sha256: expected digest (hex) or its first digits, at least 8, as in publishers' file names; None for a trusted
            store.
        config: how S3 is reached.

    Raises:
        ValueError: an `https://` URI without a digest, or a digest that does not match.
        StorageError: the file cannot be read, or the cache cannot be written.
    """
    refuse_credentials(uri)
    if not is_uri(uri):
        path = local_path(uri)
        if sha256 is not None and path.exists():
            _check(weights_digest(uri, config=config), sha256, str(path))
        return path
    if uri.startswith(("https://", "http://")) and sha256 is None:
        raise ValueError(f"{shown(uri)}: weights from the web need `sha256`, their SHA-256 in hexadecimal digits.")
    version = sha256 or remote_version(uri, config)
    address = uri.split("?", 1)[0]  # a signed address is another one each time, for the same file
    target = (
        cache_directory() / "weights" / hashlib.sha256(f"{address} {version}".encode()).hexdigest()[:16] / _name(uri)
    )
    _fetch_once(uri, target, config, sha256)
    return target


def fetch_directory(uri: str, *, config: StorageConfig) -> Path:
    """Return the local directory of a checkpoint (JSON, tokenizer, safetensors); a remote one is copied once a node."""
    if not is_uri(uri):
        return local_path(uri)
    storage = Storage(uri, config)
    files = {name: info for name, info in storage.list().items() if name.endswith(_MODEL_FILES)}
    if not files:
        raise StorageError(f"{shown(uri)} holds no checkpoint (config.json, model.safetensors, tokenizer files).")
    key = json.dumps([uri, sorted((name, info.size, info.version) for name, info in files.items())])
    target = cache_directory() / "weights" / hashlib.sha256(key.encode()).hexdigest()[:16]
    for name in files:
        _fetch_once(f"{uri.rstrip('/')}/{name}", target / name, config, None)
    return target


def weights_digest(uri: str, *, sha256: str | None = None, config: StorageConfig) -> str:
    """Return what identifies the weights at a path or URI, for a run's identity, without fetching remote ones.

    SHA-256 of local files (kept by path, size and modification time, so that gigabytes are read once), the given
    `sha256` for `https://`, size and ETag for object stores.
    """
    refuse_credentials(uri)
    if sha256 is not None:
        if is_uri(uri) and not uri.startswith(("https://", "http://")):
            remote_version(uri, config)  # raises where the file is missing
        return sha256.lower()
    if is_uri(uri):
        return remote_version(uri, config)
    path = local_path(uri)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in _MODEL_FILES)
        lines = "".join(f"{file.name} {file_digest(file)}\n" for file in files)
        return hashlib.sha256(lines.encode()).hexdigest()
    return file_digest(path)


def remote_version(uri: str, config: StorageConfig) -> str:
    """Return size and version of a remote file, or a digest of those of a remote checkpoint directory."""
    if uri.startswith(("https://", "http://")):
        raise ValueError(f"{shown(uri)}: weights from the web need their SHA-256.")
    folder, _, name = uri.rstrip("/").rpartition("/")
    info = Storage(folder, config).info(name)
    if info is not None:
        return f"{info.size}-{info.version}"
    files = {name: info for name, info in Storage(uri, config).list().items() if name.endswith(_MODEL_FILES)}
    if not files:
        raise StorageError(f"{shown(uri)}: there is no such file, nor a directory with a checkpoint.")
    text = json.dumps(sorted((name, info.size, info.version) for name, info in files.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 (hex) of a local file, kept in the cache by path, size and modification time."""
    note = _digest_note(path)
    if note.exists():
        return note.read_text()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with _cache_explained():
        _write_note(note, digest)
    return digest


def _digest_note(path: Path) -> Path:
    status = path.stat()
    key = hashlib.sha256(f"{path.resolve()} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()
    return cache_directory() / "digests" / key


@contextmanager
def _cache_explained() -> Iterator[None]:
    """Raise an error that names the cache folder if it is full or not writable."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"{cache_directory()}: {error.strerror or error}. Copies of weights, and their digests, are in this folder "
            "of each node. Make room there, or let WSSS_RAY_CACHE name a folder on another disk that this user may "
            "write, and run the same command again."
        ) from error


def _write_note(note: Path, text: str) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    temporary = note.with_name(f".{note.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(note)


def _name(uri: str) -> str:
    return uri.split("?", 1)[0].rstrip("/").rsplit("/", 1)[-1] or "weights"


def _check(digest: str, sha256: str, where: str) -> None:
    if len(sha256) < _FEWEST_DIGITS or not digest.startswith(sha256.lower()):
        raise ValueError(
            f"{where} has SHA-256 {digest}, not {sha256.lower()}: another file, or a damaged one. Download it again, "
            "or correct the digest."
        )


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Let one process of this node at a time into the block."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch_once(uri: str, target: Path, config: StorageConfig, sha256: str | None) -> None:
    """Copy a remote file to the target, unless a whole copy exists: its SHA-256 is kept beside it."""
    note = target.with_name(f".{target.name}.sha256")
    with _cache_explained(), _alone(target):
        if target.exists():
            if note.exists() and note.read_text() == file_digest(target):
                return
            logger.warning("%s is not what was fetched from %s; fetching it again", target, shown(uri))
        temporary = target.with_name(f".{target.name}.part")
        try:
            digest = _download(uri, temporary, config)
            if sha256 is not None:
                _check(digest, sha256, shown(uri))
            _write_note(note, digest)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        _write_note(_digest_note(target), digest)  # so that gigabytes are not read once more


def _download(uri: str, target: Path, config: StorageConfig) -> str:
    """Copy a remote file and return its SHA-256."""
    digest = hashlib.sha256()
    with target.open("wb") as file:
        for chunk in _chunks(uri, config):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _chunks(uri: str, config: StorageConfig) -> Iterator[bytes]:
    if uri.startswith(("https://", "http://")):
        try:
            with urllib.request.urlopen(uri, timeout=60) as response:  # noqa: S310 - the scheme is checked above
                while chunk := response.read(_CHUNK_BYTES):
                    yield chunk
        except (OSError, http.client.HTTPException) as error:
            raise StorageError(f"{shown(uri)}: cannot be fetched: {masked(str(error))}") from error
        return
    folder, _, name = uri.rpartition("/")
    try:
        with Storage(folder, config).open(name) as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
    except FileNotFoundError as error:
        raise StorageError(f"{shown(uri)}: there is no such file.") from error
