"""The part of storage that only a local disk has: dot-files that are renamed, links, syncing."""

from __future__ import annotations

import errno
import fcntl
import io
import os
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
_UNFINISHED = ".tmp"


@dataclass(frozen=True, kw_only=True)
class FileInfo:
    """A listed file."""

    size: int
    """Bytes."""
    version: str
    """Changes when the file is replaced: ETag on S3, inode, size and modification time on disk."""


def local_info(status: os.stat_result) -> FileInfo:
    """Size and version of a file on disk."""
    return FileInfo(size=status.st_size, version=f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}")


def entries_of(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """Name and status, through links, of all that lies directly in a folder, without broken links; none for no folder.

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
    """Whether it is a plain file."""
    return stat.S_ISREG(status.st_mode)


def is_folder(status: os.stat_result) -> bool:
    """Whether it is a folder."""
    return stat.S_ISDIR(status.st_mode)


def walk(root: str, on_skipped: Callable[[str, str], None] | None) -> Iterator[tuple[str, FileInfo]]:
    """All files below a folder by path relative to it, without dot-files; linked folders are told, not entered."""

    def fail(error: OSError) -> None:  # os.walk alone would pass over what it cannot read
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
    """A dot-file with the data beside the target, synced if `durable`; gone at the end unless it was renamed.

    It is locked for as long, so that `sweep` can tell it from one whose writer was killed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{target.name[:100]}.{uuid.uuid4().hex}{_UNFINISHED}"
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
    """A new file with its lock, made again where a sweep came between the two."""
    while True:
        file = path.open("xb")
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()


def sweep(folder: str) -> int:
    """Remove the dot-files of writers that were killed, which hold no lock any more; returns how many there were."""
    removed = 0
    for name, status in entries_of(folder):
        if name.startswith(".") and name.endswith(_UNFINISHED) and is_file(status):
            path = Path(folder) / name
            try:
                with path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                    removed += 1
            except (FileNotFoundError, BlockingIOError):  # finished meanwhile; being written
                continue
    return removed


@contextmanager
def temporary_file() -> Iterator[BinaryIO]:
    """A file for what is to be sent to a store, which has nothing to do with a full disk of this machine."""
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
    """A file for reading at random places whose every `read` goes through a function."""

    def __init__(self, file: BinaryIO, read: Callable[[int], bytes]) -> None:
        """Take the file, and the function that reads so many bytes of it (-1: the rest)."""
        self._file, self._read = file, read

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Place in the file."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        """As many bytes, fewer only at the end."""
        return self._read(size)

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer; returns how many bytes came."""
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
