"""Files on a local disk: atomic writes by renaming, links, syncing."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import re
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from wsss_ray.storage.errors import FULL_DISK, StorageError, explained

_LEADS_NOWHERE = (errno.ENOENT, errno.ELOOP)
_UNFINISHED = re.compile(r"\..*\.[0-9a-f]{32}\.tmp")
"""Name of a file that is being written."""


@dataclass(frozen=True, kw_only=True)
class FileInfo:
    """A listed file."""

    size: int
    """Bytes."""
    version: str
    """Changes when the file is replaced: ETag on S3, inode, size and modification time on disk."""


def local_info(status: os.stat_result) -> FileInfo:
    """Return size and version of a file on disk."""
    return FileInfo(size=status.st_size, version=f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}")


def entries_of(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield name and status, through links, of the entries of a folder; broken links and a missing folder give none.

    One `stat` per entry: folders of a run hold a hundred thousand.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    yield entry.name, entry.stat()
                except OSError as error:
                    if error.errno not in _LEADS_NOWHERE:
                        raise
    except (FileNotFoundError, NotADirectoryError):
        return


def is_file(status: os.stat_result) -> bool:
    """Return whether it is a plain file."""
    return stat.S_ISREG(status.st_mode)


def is_folder(status: os.stat_result) -> bool:
    """Return whether it is a folder."""
    return stat.S_ISDIR(status.st_mode)


def walk(root: str, on_skipped: Callable[[str, str], None] | None) -> Iterator[tuple[str, FileInfo]]:
    """Yield all files below a folder by relative path, without dot-files; linked folders are reported, not entered."""

    def fail(error: OSError) -> None:  # by default os.walk skips folders that it cannot read
        if not (isinstance(error, FileNotFoundError) and error.filename == root):
            raise error

    for folder, names, files in os.walk(root, onerror=fail):
        prefix = "" if folder == root else f"{Path(folder).relative_to(root).as_posix()}/"
        names[:] = [name for name in names if not name.startswith(".")]
        for name in names:
            if on_skipped and (Path(folder) / name).is_symlink():
                on_skipped(prefix + name, "linked folder")
        for name in files:
            if not name.startswith("."):
                try:
                    yield prefix + name, local_info((Path(folder) / name).stat())
                except OSError as error:
                    if error.errno not in _LEADS_NOWHERE:
                        raise
                    if on_skipped:
                        on_skipped(prefix + name, "broken link")


@contextmanager
def unfinished(target: Path, data: bytes, *, durable: bool = True) -> Iterator[Path]:
    """Write the data to a dot-file beside the target, synced if `durable`; it is removed unless the block renames it.

    It is locked in the block, so that `sweep` can distinguish it from one whose writer was killed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{target.name[:100]}.{uuid.uuid4().hex}.tmp"
    try:
        with _open_locked(temporary) as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
            yield temporary
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _open_locked(path: Path) -> BinaryIO:
    """Open a new file and lock it; repeat where a sweep came between the two."""
    while True:
        file = path.open("xb")
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()


def sweep(root: str) -> None:
    """Remove, in a folder and all below it, the dot-files of killed writers, whose locks have ended."""
    for folder, _, names in os.walk(root):
        for name in names:
            if _UNFINISHED.fullmatch(name):
                path = Path(folder) / name
                # finished meanwhile; being written; another user's
                with suppress(FileNotFoundError, BlockingIOError, PermissionError), path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()


@contextmanager
def temporary_file() -> Iterator[BinaryIO]:
    """Open a temporary file for content that will be sent to a store; an error names a full local disk."""
    try:
        with tempfile.NamedTemporaryFile() as file:
            yield cast("BinaryIO", file)
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        where = f"{tempfile.gettempdir()} (for temporary files; TMPDIR may name another folder)"
        raise cast("StorageError", explained(error, where)) from error


def sync_directory(directory: Path) -> None:
    """Make a rename in the directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class ReadThrough(io.RawIOBase):
    """A seekable file that reads through a function."""

    def __init__(self, file: BinaryIO, read: Callable[[int], bytes]) -> None:
        """Wrap a file; `read` reads so many bytes of it (-1: the rest)."""
        self._file, self._read = file, read

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in the file."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position."""
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        """Return so many bytes, fewer only at the end."""
        return self._read(size)

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer; return the number of bytes read."""
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
