"""Paths that a source may name, and the image ids that follow from them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

from wsss_ray.config import StorageConfig
from wsss_ray.shards.row_checks import MAX_ID_BYTES, check_image_id
from wsss_ray.storage.errors import StorageError
from wsss_ray.storage.local_files import FileInfo
from wsss_ray.storage.storage import Storage

IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("avif", "bmp", "dib", "gif", "heic", "heif", "ico", "j2k", "jfif", "jp2", "jpe", "jpeg", "jpg", "mpo"),
        *("pbm", "pcx", "pgm", "png", "pnm", "ppm", "tga", "tif", "tiff", "webp"),
    )
)
"""Suffixes of images where no list names the files. A file that a list names is read whatever its suffix."""
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_HASH_DIGITS = 32


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
    """Raise a ValueError for a folder of a tree that is a link out of the tree.

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


def image_ids(paths: Iterable[str]) -> dict[str, str]:
    """Return an id for each path; it depends on the set of paths and not on their order.

    The id is the path without its suffix, each byte (UTF-8) other than letters, digits, `_` and `-` written as `.` and
    two upper-case hexadecimal digits: `dogs/a 1.jpg` becomes `dogs.2Fa.201`. A dot is kept where such a letter follows
    and it cannot be taken for an escape. An id that would begin with a dot gets `_.` in front. Paths that differ only
    in their suffix keep it: `a.jpg` and `a.png` become `a.jpg` and `a.png`. An id of more than 200 bytes is cut and
    ends in 32 digits of the path's SHA-256; so does an id that is equal to such a cut one.
    """
    forms: dict[str, Callable[[str], str]] = dict.fromkeys(paths, _id_without_suffix)
    while True:
        ids = {path: form(path) for path, form in forms.items()}
        counts = Counter(ids.values())
        clashing = [path for path, image_id in ids.items() if counts[image_id] > 1 and forms[path] is not _hashed_id]
        if not clashing:
            return {path: check_image_id(image_id) for path, image_id in ids.items()}
        for path in clashing:
            forms[path] = _whole_id if forms[path] is _id_without_suffix else _hashed_id


def _id_without_suffix(path: str) -> str:
    return _cut(_escape(str(PurePosixPath(path).with_suffix(""))), path)


def _whole_id(path: str) -> str:
    return _cut(_escape(path), path)


def _hashed_id(path: str) -> str:
    return _with_digest(_escape(path), path)


def _cut(escaped: str, path: str) -> str:
    return escaped if len(escaped) <= MAX_ID_BYTES else _with_digest(escaped, path)


def _with_digest(escaped: str, path: str) -> str:
    digest = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:_HASH_DIGITS]
    return f"{escaped[: MAX_ID_BYTES - _HASH_DIGITS - 1]}-{digest}"


def _escape(text: str) -> str:
    data = text.encode("utf-8", "surrogateescape")
    parts = []
    for index, byte in enumerate(data):
        follows = data[index + 1 : index + 3]
        is_text_dot = byte == ord(".") and index > 0 and follows[:1] and follows[0] in _PLAIN and not _is_hex(follows)
        parts.append(chr(byte) if byte in _PLAIN or is_text_dot else f".{byte:02X}")
    escaped = "".join(parts)
    return f"_.{escaped}" if escaped.startswith(".") else escaped


def _is_hex(pair: bytes) -> bool:
    return len(pair) == 2 and all(byte in b"0123456789ABCDEF" for byte in pair)


class Files:
    """Sizes of files below a root. Each folder is listed once."""

    def __init__(self, storage: Storage, known: Mapping[str, FileInfo] | None = None) -> None:
        """Start from what a walk of the root found, if there was one."""
        self._storage = storage
        self._known = known or {}
        self._folders: dict[str, Mapping[str, FileInfo]] = {}
        self._indexes: dict[tuple[str | None, Callable[[str], str]], Mapping[str, str]] = {}

    def size(self, path: str) -> int | None:
        """Return the bytes of a file, or None where there is no such file."""
        info = self._known.get(path)
        if info is None:
            folder, _, name = path.rpartition("/")
            info = self._listed(folder).get(name)
            if info is None and name.startswith("."):
                info = self._storage.info(path)
        return None if info is None else info.size

    def similar(self, path: str) -> str | None:
        """Return the path of an image that an absent one may mean, if there is one.

        It differs in case only, or else in its suffix, or else in its folder.
        """
        folder = path.rpartition("/")[0]
        for form in (str.casefold, _stem, _name):
            for scope in (None, folder):
                if found := self._index(scope, form).get(form(path)):
                    return found
        return None

    def _listed(self, folder: str) -> Mapping[str, FileInfo]:
        if folder not in self._folders:
            self._folders[folder] = self._storage.list(folder)
        return self._folders[folder]

    def _index(self, folder: str | None, form: Callable[[str], str]) -> Mapping[str, str]:
        """The images of a folder, or all that the walk found, by a form of their paths."""
        if (folder, form) not in self._indexes:
            paths = self._known if folder is None else (f"{folder}/{name}".lstrip("/") for name in self._listed(folder))
            self._indexes[folder, form] = {form(path): path for path in paths if has_image_suffix(path)}
        return self._indexes[folder, form]


def _stem(path: str) -> str:
    return str(PurePosixPath(path).with_suffix("")).casefold()


def _name(path: str) -> str:
    return PurePosixPath(path).name.casefold()
