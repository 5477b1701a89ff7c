"""Paths that a source may name, and reading below the input only."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from wsss_ray.config import StorageConfig
from wsss_ray.storage.errors import StorageError
from wsss_ray.storage.storage import Storage

IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("avif", "bmp", "dib", "gif", "heic", "heif", "ico", "j2k", "jfif", "jp2", "jpe", "jpeg", "jpg", "mpo"),
        *("pbm", "pcx", "pgm", "png", "pnm", "ppm", "tga", "tif", "tiff", "webp"),
    )
)
"""Suffixes of images where no list names the files. A file that a list names is read whatever its suffix."""


class UnreadableError(ValueError):
    """A listed file that cannot be read; the text is a short reason that begins with its kind."""


def plain_path(text: str, where: str) -> str:
    """Return a path from a list as one relative to the root, with forward slashes and without `.` parts.

    Args:
        text: path as written in the list.
        where: file and line, for the message.

    Raises:
        ValueError: it is empty, absolute, or has a `..` part.
    """
    if not text or "\0" in text:
        raise ValueError(f"{where}: the file name is empty or has a NUL character.")
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ValueError(f"{where}: the file name {text!r} is not Unicode text.") from error
    path = PurePosixPath(text)
    if path.is_absolute() or PurePosixPath(text.replace("\\", "/")).is_absolute() or text[1:3] in (":\\", ":/"):
        raise ValueError(f"{where}: {text!r} is an absolute path: write it relative to --input.")
    if "://" in text:
        raise ValueError(f"{where}: {text!r} is a URI: write paths relative to --input.")
    if ".." in path.parts or ".." in text.split("\\"):
        raise ValueError(f"{where}: {text!r} has a `..`: paths must stay inside --input.")
    if not path.parts:
        raise ValueError(f"{where}: {text!r} names no file.")
    return str(path)


def split_file(path: str, storage: StorageConfig) -> tuple[Storage, str]:
    """Return the folder of a file, given by local path or URI, and its name."""
    folder, _, name = path.rpartition("/")
    return Storage(folder or ("/" if path.startswith("/") else "."), storage), name


def has_image_suffix(path: str) -> bool:
    """Return whether the name of a file ends as that of an image."""
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def leaves_root(storage: Storage, path: str) -> bool:
    """Return whether links lead a local path out of the storage's root. Object stores have no links."""
    if not storage.is_local:
        return False
    return not Path(os.path.realpath(storage.describe(path))).is_relative_to(os.path.realpath(storage.uri))


def check_folder(storage: Storage, folder: str) -> None:
    """Refuse a folder of a tree that is a link out of the tree.

    Raises:
        ValueError: names the link, and what to do.
    """
    if leaves_root(storage, folder):
        target = os.path.realpath(storage.describe(folder))
        raise ValueError(
            f"{storage.describe(folder)} is a link that leads out of the tree, to {target}: links are followed only "
            "inside --input. Copy, hard-link or bind-mount the folder into the tree."
        )


def read_inside(storage: Storage, path: str, *, size: int | None, max_bytes: int) -> bytes:
    """Return the bytes of a listed file.

    Args:
        storage: root of the path.
        path: path relative to it.
        size: bytes as listed, or None where the listing did not find the file.
        max_bytes: larger files are not read.

    Raises:
        UnreadableError: the file is absent, too large, outside the root, or (on disk) cannot be read.
        StorageError: the store fails, or the file has changed since it was listed; the job must stop, because the
            same input would then give other rows.
    """
    if leaves_root(storage, path):
        raise UnreadableError("outside the input: a link leads out of it")
    if size is None:
        raise UnreadableError("absent: no such file")
    if size > max_bytes:
        raise UnreadableError(f"too large: {size} bytes, the limit is {max_bytes}")
    try:
        # The type is checked before the file is opened: reading a pipe would never return.
        is_file = not storage.is_local or stat.S_ISREG(os.stat(storage.describe(path)).st_mode)  # noqa: PTH116
        data = storage.read(path) if is_file else None
    except FileNotFoundError as error:
        raise StorageError(
            f"{storage.describe(path)} was listed when the job began, and does not exist now. On a cluster the input "
            "must be on storage that every node sees under the same path (or s3://)."
        ) from error
    except OSError as error:
        if not storage.is_local:
            raise
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        raise UnreadableError(f"unreadable: {cause.strerror or cause}") from error
    except ValueError as error:  # an object's key that is no plain path
        raise UnreadableError("bad name: not a plain path") from error
    if data is None:
        raise UnreadableError("not a file: it is a folder, pipe or device")
    if len(data) != size:
        raise StorageError(
            f"{storage.describe(path)} has {len(data)} bytes, and had {size} when the job began: it is being written. "
            "Start the job when the input no longer changes."
        )
    return data
