"""One file API for local paths and URIs: the same calls for a directory and for any fsspec URI (`s3://` above all).

A run relies on three properties: a file appears whole or not at all (`write`), a file can be claimed once (`create`),
and a file is replaced only if it is still the one that was read (`replace`). Local files are written under a dot-name,
synced and renamed; on S3 each is one PUT, conditional where needed.
"""

from __future__ import annotations

import fcntl
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from wsss_ray.addresses import refuse_credentials, shown
from wsss_ray.config import StorageConfig
from wsss_ray.storage import local_files, retries
from wsss_ray.storage.errors import StorageError, explained, is_absent
from wsss_ray.storage.local_files import FileInfo, ReadThrough, local_info, sync_directory, temporary_file, unfinished
from wsss_ray.storage.redaction import masked
from wsss_ray.storage.remote_files import RemoteFiles

ResultT = TypeVar("ResultT")


class Storage:
    """A directory or prefix; every path given to a method is relative to it, with forward slashes.

    Can be pickled: an actor that receives one opens its own connection.
    """

    def __init__(self, uri: str, config: StorageConfig | None = None) -> None:
        """Name the root; nothing is accessed yet.

        Args:
            uri: local path (`~` is expanded), or any URI that fsspec knows.
            config: how S3 is reached.

        Raises:
            ValueError: the URI's scheme is unknown or its package is missing, or it holds a password.
        """
        if not uri:
            raise ValueError("an empty path was given where a directory or URI is needed.")
        refuse_credentials(uri)
        if uri.startswith(("http://", "https://")) and "?" in uri:
            raise ValueError(f"{shown(uri)}: the address of a folder must not hold a query.")
        if uri.startswith("file://") and not uri.startswith("file:///"):
            raise ValueError(f"{shown(uri)}: an address of a local file begins with file:///, without a host.")
        self.config = config or StorageConfig()
        self._uri = uri
        self._connect()

    def _connect(self) -> None:
        try:
            if self._uri.startswith(("s3://", "s3a://")):
                from wsss_ray.storage import s3  # noqa: PLC0415 - half a second that local paths do not need

                file_system, root = s3.connect(self._uri, self.config)
            else:
                path = self._uri if "://" in self._uri else str(Path(self._uri).expanduser().absolute())
                file_system, root = fsspec.core.url_to_fs(path)
        except (ValueError, ImportError) as error:
            raise ValueError(f"cannot use {shown(self._uri)!r}: {masked(str(error))}") from error
        self._root = root.rstrip("/") or "/"
        self.is_local = isinstance(file_system, LocalFileSystem)
        self.uri: str = self._root if self.is_local else file_system.unstrip_protocol(self._root)
        """The root as a user would write it: an absolute path, or a URI."""
        self._remote = RemoteFiles(file_system, self.uri)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is needed to connect again."""
        return {"uri": self._uri, "config": self.config}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Connect again."""
        self._uri, self.config = state["uri"], state["config"]
        self._connect()

    def describe(self, path: str = "") -> str:
        """Return path or URI of a file below the root, for messages."""
        return f"{self.uri}/{path}" if path else self.uri

    def child(self, path: str) -> Storage:
        """Return the storage whose root is a folder below this one."""
        return Storage(self.describe(path), self.config)

    def read(self, path: str) -> bytes:
        """Return the whole content of a file.

        Raises:
            FileNotFoundError: it does not exist.
            StorageError: it cannot be read.
        """
        full = self._full(path)
        with self._explain(path):
            return Path(full).read_bytes() if self.is_local else self._again(path, lambda: self._remote.read(full))

    def read_end(self, path: str, size: int) -> bytes:
        """Return the last bytes of a file, all where it has fewer; one request of S3. Raises as `read`."""
        full = self._full(path)
        with self._explain(path):
            if not self.is_local:
                return self._again(path, lambda: self._remote.read_end(full, size))
            with Path(full).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - size))
                return file.read()

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading at any position (Parquet footers and row groups)."""
        with self._explain(path):
            if self.is_local:
                return Path(self._full(path)).open("rb")
            file = self._remote.open(self._full(path))
        return cast("BinaryIO", ReadThrough(file, functools.partial(self._read_open, path, file)))

    def _read_open(self, path: str, file: BinaryIO, size: int) -> bytes:
        with self._explain(path):
            return self._again(path, lambda: file.read(size))  # a failed read does not move the position

    def info(self, path: str) -> FileInfo | None:
        """Return size and version of a file; None where there is none, or a pipe or device, which has no end."""
        with self._explain(path):
            try:
                if not self.is_local:
                    return self._remote.info(self._full(path))
                status = Path(self._full(path)).stat()
                plain = local_files.is_file(status) or local_files.is_folder(status)
                return local_info(status) if plain else None
            except FileNotFoundError as error:
                if is_absent(error):
                    return None
                raise

    def exists(self, path: str) -> bool:
        """Return whether the file exists."""
        return self.info(path) is not None

    def list(self, folder: str = "") -> dict[str, FileInfo]:
        """Return the files directly in a folder by name, sorted, without dot-files; a missing folder is empty."""
        with self._explain(folder):
            if self.is_local:
                entries = local_files.entries_of(self._full(folder))
                files = {name: local_info(status) for name, status in entries if local_files.is_file(status)}
            else:
                files = self._remote.list(self._full(folder))
        return {name: files[name] for name in sorted(files) if not name.startswith(".")}

    def folders(self, folder: str = "") -> tuple[str, ...]:
        """Return the names of the folders directly in a folder, sorted, without dot-folders."""
        with self._explain(folder):
            if self.is_local:
                entries = local_files.entries_of(self._full(folder))
                names = {name for name, status in entries if local_files.is_folder(status)}
            else:
                names = self._remote.folders(self._full(folder))
        return tuple(sorted(name for name in names if not name.startswith(".")))

    def walk(self, *, on_skipped: Callable[[str, str], None] | None = None) -> dict[str, FileInfo]:
        """Return all files below the root by relative path, sorted, without dot-files and what dot-folders hold.

        Args:
            on_skipped: called with path and reason ("linked folder", "broken link") of what is not entered: a linked
                folder may lead out of the root, or in a circle.
        """
        with self._explain(""):
            local = self.is_local
            files = dict(local_files.walk(self._root, on_skipped)) if local else self._remote.walk(self._root)
        return dict(sorted(files.items()))

    def write(self, path: str, data: bytes, *, durable: bool = True) -> None:
        """Write a file whole and atomically; an existing one is replaced.

        `durable`: it also survives a loss of power, at some milliseconds a file; not needed for what can be recreated.
        """
        with self._explain(path):
            if not self.is_local:
                self._remote.write(self._full(path), data)
                return
            with unfinished(Path(self._full(path)), data, durable=durable) as temporary:
                temporary.replace(self._full(path))
                if durable:
                    sync_directory(temporary.parent)

    def remove(self, path: str) -> None:
        """Remove a file, of a link the link; a missing one is no error. A folder is refused or stays."""
        with self._explain(path), suppress(FileNotFoundError):
            if self.is_local:
                Path(self._full(path)).unlink()
            else:
                self._remote.remove(self._full(path))

    def sweep(self, folder: str = "") -> None:
        """Remove the unfinished files of killed writers in a folder and below; a store never has any."""
        if self.is_local:
            with self._explain(folder):
                local_files.sweep(self._full(folder))

    @contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        """Open a file to write piece by piece, for content that is not to be held in memory.

        It appears whole, atomically, when the block ends, and not at all when the block raises. On S3 the content is
        collected in a temporary file of this machine and then sent.
        """
        if not self.is_local:
            with temporary_file() as spool:
                yield spool
                spool.flush()
                with self._explain(path):
                    self._remote.upload(spool.name, self._full(path))
            return
        with self._explain(path), unfinished(Path(self._full(path)), b"") as temporary:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._full(path))
            sync_directory(temporary.parent)

    def create(self, path: str, data: bytes) -> bool:
        """Write a file only if there is none, atomically; return whether this call created it."""
        with self._explain(path):
            if not self.is_local:
                return self._remote.write_if(self._full(path), data, None)
            with unfinished(Path(self._full(path)), data) as temporary:
                try:
                    os.link(temporary, self._full(path))  # with its content, unlike O_EXCL; fails if it exists
                except FileExistsError:
                    return False
                sync_directory(temporary.parent)
                return True

    def replace(self, path: str, data: bytes, version: str) -> bool:
        """Replace a file only if it is still the `version` that was listed, atomically; return whether it was replaced.

        It is not replaced if another writer came first, or the file was removed.
        """
        with self._explain(path):
            if not self.is_local:
                return self._remote.write_if(self._full(path), data, version)
            with unfinished(Path(self._full(path)), data) as temporary:
                try:
                    with Path(self._full(path)).open("rb") as current:
                        fcntl.flock(current, fcntl.LOCK_EX)  # a writer that waited here finds another inode
                        info = self.info(path)
                        if info is None or info.version != version:
                            return False
                        temporary.replace(self._full(path))
                except FileNotFoundError:
                    return False
                sync_directory(temporary.parent)
                return True

    def _full(self, path: str) -> str:
        parts = path.split("/") if path else []
        if any(part in ("", ".", "..") for part in parts) or "\0" in path:
            raise ValueError(f"{path!r} is not a plain path below {self.uri}.")
        return "/".join([self._root.rstrip("/"), *parts]) if parts else self._root

    def _again(self, path: str, read: Callable[[], ResultT]) -> ResultT:
        """Retry a read when the connection drops."""
        return retries.again(read, limit=self.config.retries, what=self.describe(path))

    @contextmanager
    def _explain(self, path: str) -> Iterator[None]:
        """Turn the errors of a store into errors that say what to do; missing files stay FileNotFoundError."""
        try:
            yield
        except (FileNotFoundError, FileExistsError, StorageError) as error:
            if not isinstance(error, FileNotFoundError) or is_absent(error):
                raise
            raise cast("StorageError", explained(error, self.describe(path))) from error
        except Exception as error:
            reason = error if self.is_local else self._remote.reason(self._full(path), error)
            advice = explained(reason, self.describe(path))
            if advice is None:
                raise
            raise advice from error
