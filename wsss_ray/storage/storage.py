"""One room for files: the same calls for a local directory and for any fsspec URI (`s3://` above all).

What a run relies on: a file appears whole or not at all (`write`), a file can be claimed once (`create`), and a file
is replaced only if it is still the one that was read (`replace`). Local files are written under a dot-name, synced and
renamed; on S3 each is one PUT, conditional where it must be.
"""

from __future__ import annotations

import fcntl
import functools
import logging
import mimetypes
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from wsss_ray.config import StorageConfig
from wsss_ray.storage import local_files, retries
from wsss_ray.storage.errors import BARE_CODES, StorageError, code_of, explained, is_absent
from wsss_ray.storage.local_files import FileInfo, ReadThrough, local_info, sync_directory, temporary_file, unfinished
from wsss_ray.storage.redaction import masked, refuse_credentials, shown

logger = logging.getLogger(__name__)

_SINGLE_PUT_BYTES = 4 * 2**30
"""S3 takes 5 GB in one PUT; a conditional multipart upload is not known everywhere, so one PUT it is."""

ResultT = TypeVar("ResultT")


class Storage:
    """A directory or prefix; every path given to a method is relative to it, with forward slashes.

    Can be pickled: an actor that receives one opens its own connection.
    """

    def __init__(self, uri: str, config: StorageConfig | None = None) -> None:
        """Name the root; nothing is touched yet.

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
        self.config = config or StorageConfig()
        self._uri = uri
        self._connect()

    def _connect(self) -> None:
        try:
            if self._is_s3:
                from wsss_ray.storage import s3  # noqa: PLC0415 - half a second that local paths do not need

                self._fs, root = s3.connect(self._uri, self.config)
            else:
                path = self._uri if "://" in self._uri else str(Path(self._uri).expanduser().absolute())
                self._fs, root = fsspec.core.url_to_fs(path)
        except (ValueError, ImportError) as error:
            raise ValueError(f"cannot use {shown(self._uri)!r}: {masked(str(error))}") from error
        self._root = root.rstrip("/") or "/"
        self.is_local = isinstance(self._fs, LocalFileSystem)

    def __getstate__(self) -> dict[str, Any]:
        """Keep what is needed to connect again."""
        return {"uri": self._uri, "config": self.config}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Connect again."""
        self._uri, self.config = state["uri"], state["config"]
        self._connect()

    @property
    def _is_s3(self) -> bool:
        return self._uri.startswith(("s3://", "s3a://"))

    @property
    def uri(self) -> str:
        """The root as a user would write it: an absolute path, or a URI."""
        return self._root if self.is_local else cast("str", self._fs.unstrip_protocol(self._root))

    def describe(self, path: str = "") -> str:
        """Path or URI of a file below the root, for messages."""
        return f"{self.uri}/{path}" if path else self.uri

    def child(self, path: str) -> Storage:
        """The storage whose root is a folder below this one."""
        return Storage(self.describe(path), self.config)

    def read(self, path: str) -> bytes:
        """Whole content of a file.

        Raises:
            FileNotFoundError: it is not there.
            StorageError: it cannot be read.
        """
        # Else s3fs asks for the size first, to read large files in parts: a second request for each small one.
        options = {"max_concurrency": 1} if self._is_s3 else {}
        with self._explain(path):
            return cast("bytes", self._again(path, lambda: self._fs.cat_file(self._full(path), **options)))

    def read_end(self, path: str, size: int) -> bytes:
        """The last bytes of a file, all where it has fewer; one request of S3. Raises as `read`."""
        if not self._is_s3:
            with self.open(path) as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - size))
                return file.read()
        with self._explain(path):
            try:
                return cast("bytes", self._again(path, lambda: self._fs.cat_file(self._full(path), start=-size)))
            except OSError as error:
                if code_of(error) == "InvalidRange":  # an empty file has no last byte
                    return b""
                raise

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading at random places (Parquet footers and row groups)."""
        with self._explain(path):
            if self.is_local:
                return Path(self._full(path)).open("rb")
            file = self._fs.open(self._full(path), "rb", cache_type="readahead", block_size=2**20)
        return cast("BinaryIO", ReadThrough(file, functools.partial(self._read_open, path, file)))

    def _read_open(self, path: str, file: BinaryIO, size: int) -> bytes:
        with self._explain(path):
            return self._again(path, lambda: file.read(size))  # a failed read leaves the place where it was

    def info(self, path: str) -> FileInfo | None:
        """Size and version of a file, or None where there is none, or a pipe or device, which no read would end."""
        with self._explain(path):
            try:
                if self.is_local:
                    status = Path(self._full(path)).stat()
                    plain = local_files.is_file(status) or local_files.is_folder(status)
                    return local_info(status) if plain else None
                return _remote_info(self._fs.info(self._full(path)))
            except FileNotFoundError as error:
                if is_absent(error):
                    return None
                raise

    def exists(self, path: str) -> bool:
        """Whether the file is there."""
        return self.info(path) is not None

    def list(self, folder: str = "") -> dict[str, FileInfo]:
        """Files directly in a folder, by name, sorted, without dot-files (unfinished); no folder is an empty one."""
        files = {}
        with self._explain(folder):
            if self.is_local:
                entries = local_files.entries_of(self._full(folder))
                files = {name: local_info(status) for name, status in entries if local_files.is_file(status)}
            else:
                for entry in self._listed(folder):
                    if not self._is_folder(entry):
                        files[entry["name"].rsplit("/", 1)[-1]] = _remote_info(entry)
        return {name: files[name] for name in sorted(files) if not name.startswith(".")}

    def folders(self, folder: str = "") -> tuple[str, ...]:
        """Names of the folders directly in a folder, sorted, without dot-folders."""
        with self._explain(folder):
            if self.is_local:
                entries = local_files.entries_of(self._full(folder))
                names = {name for name, status in entries if local_files.is_folder(status)}
            else:
                paths = [entry["name"].rstrip("/") for entry in self._listed(folder) if self._is_folder(entry)]
                names = {path.rsplit("/", 1)[-1] for path in paths if path != self._full(folder)}
        return tuple(sorted(name for name in names if not name.startswith(".")))

    def _listed(self, folder: str) -> tuple[dict[str, Any], ...]:
        """What a store holds directly in a folder."""
        try:
            return tuple(self._fs.ls(self._full(folder), detail=True))
        except (FileNotFoundError, NotADirectoryError) as error:
            if isinstance(error, NotADirectoryError) or is_absent(error):
                return ()
            raise

    def walk(self, *, on_skipped: Callable[[str, str], None] | None = None) -> dict[str, FileInfo]:
        """All files below the root, by path relative to it, sorted; dot-files and what dot-folders hold are left out.

        Args:
            on_skipped: called with the path and the reason ("linked folder", "broken link") of what is not entered: a
                linked folder may lead out of the root, or round in a circle.
        """
        files: dict[str, FileInfo] = {}
        with self._explain(""):
            if self.is_local:
                files.update(local_files.walk(self._root, on_skipped))
            else:
                for name, entry in self._found().items():
                    path = name.removeprefix(self._root).lstrip("/")
                    hidden = any(part.startswith(".") for part in path.split("/"))
                    if path and not hidden and not self._is_folder(entry):
                        files[path] = _remote_info(entry)
        return dict(sorted(files.items()))

    def _found(self) -> dict[str, Any]:
        """All that a store holds below the root."""
        try:
            return cast("dict[str, Any]", self._fs.find(self._root, detail=True))
        except FileNotFoundError as error:
            if is_absent(error):
                return {}
            raise

    def _is_folder(self, entry: dict[str, Any]) -> bool:
        """Whether an entry of a store is a folder, be it the empty object that marks one."""
        return entry["type"] == "directory" or str(entry["name"]).endswith("/")

    def write(self, path: str, data: bytes, *, durable: bool = True) -> None:
        """Write a file whole and atomically; one that is there is replaced.

        `durable`: it also survives a loss of power, at some milliseconds a file; not needed for what can be made again.
        """
        with self._explain(path):
            if not self.is_local:
                self._fs.pipe_file(self._full(path), data, **self._put_options(path))
                return
            with unfinished(Path(self._full(path)), data, durable=durable) as temporary:
                temporary.replace(self._full(path))
                if durable:
                    sync_directory(temporary.parent)

    def remove(self, path: str) -> None:
        """Remove a file, of a link the link; one that is gone already is no error. A folder is refused or stays."""
        with self._explain(path), suppress(FileNotFoundError):
            self._fs.rm_file(self._full(path))

    def sweep(self, folder: str = "") -> None:
        """Remove the unfinished files of killed writers in a folder and below; a store never has any."""
        if self.is_local:
            with self._explain(folder):
                local_files.sweep(self._full(folder))

    @contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        """A file to write piece by piece, for content that is not to be held in memory.

        It appears whole, atomically, when the block ends, and not at all when the block raises. On S3 the content is
        collected in a temporary file of this machine and then sent.
        """
        if not self.is_local:
            with temporary_file() as spool:
                yield spool
                spool.flush()
                with self._explain(path):
                    self._fs.put_file(spool.name, self._full(path), **self._content_type(path))
            return
        with self._explain(path), unfinished(Path(self._full(path)), b"") as temporary:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._full(path))
            sync_directory(temporary.parent)

    def create(self, path: str, data: bytes) -> bool:
        """Write a file only if there is none, atomically.

        Returns:
            Whether this call made it; False where another did before.
        """
        with self._explain(path):
            if not self.is_local:
                return self._put_if(path, data, None) if self._is_s3 else self._put_after_look(path, data, None)
            with unfinished(Path(self._full(path)), data) as temporary:
                try:
                    os.link(temporary, self._full(path))  # with its content, unlike O_EXCL; fails if it exists
                except FileExistsError:
                    return False
                sync_directory(temporary.parent)
                return True

    def replace(self, path: str, data: bytes, version: str) -> bool:
        """Replace a file only if it is still the `version` that was listed, atomically.

        Returns:
            Whether it was replaced; False where another writer came first or it is gone.
        """
        with self._explain(path):
            if not self.is_local:
                return self._replace_remote(path, data, version)
            with unfinished(Path(self._full(path)), data) as temporary:
                try:
                    with Path(self._full(path)).open("rb") as current:
                        fcntl.flock(current, fcntl.LOCK_EX)  # who waited here finds another inode under the name
                        info = self.info(path)
                        if info is None or info.version != version:
                            return False
                        temporary.replace(self._full(path))
                except FileNotFoundError:
                    return False
                sync_directory(temporary.parent)
                return True

    def _replace_remote(self, path: str, data: bytes, version: str) -> bool:
        if not self._is_s3:
            return self._put_after_look(path, data, version)
        try:
            return self._put_if(path, data, version)
        except FileNotFoundError:
            return False

    def _put_if(self, path: str, data: bytes, version: str | None) -> bool:
        """PUT on the condition that the file is still this version, or that there is none; whether this call wrote.

        The mark in the metadata tells who wrote: where an answer was lost, the request made again finds its own work.
        """
        mark = uuid.uuid4().hex
        condition = {"mode": "create"} if version is None else {"IfMatch": f'"{version}"'}
        try:
            self._fs.pipe_file(
                self._full(path), data, Metadata={"writer": mark}, **condition, **self._put_options(path)
            )
        except OSError as error:
            code = code_of(error)
            if isinstance(error, FileExistsError) or code in {"PreconditionFailed", "412"}:
                return self._fs.metadata(self._full(path)).get("writer") == mark
            if code not in {"NotImplemented", "501"}:
                raise
            logger.warning("%s: this store has no conditional writes: two runs at once may collide.", self.uri)
            return self._put_after_look(path, data, version)
        return True

    def _put_after_look(self, path: str, data: bytes, version: str | None) -> bool:
        """The next best where a store has no conditions."""
        info = self.info(path)
        if (info and info.version) != version:
            return False
        self._fs.pipe_file(self._full(path), data, **self._put_options(path))
        return True

    def _full(self, path: str) -> str:
        parts = path.split("/") if path else []
        if any(part in ("", ".", "..") for part in parts) or "\0" in path:
            raise ValueError(f"{path!r} is not a plain path below {self.uri}.")
        return "/".join([self._root.rstrip("/"), *parts]) if parts else self._root

    def _put_options(self, path: str) -> dict[str, Any]:
        """One PUT on S3."""
        return {"chunksize": _SINGLE_PUT_BYTES // 2, **self._content_type(path)} if self._is_s3 else {}

    def _content_type(self, path: str) -> dict[str, str]:
        """The type that a browser needs to show a file of S3 instead of saving it."""
        kind = mimetypes.guess_type(path)[0]
        return {"ContentType": kind} if kind and self._is_s3 else {}

    def _again(self, path: str, work: Callable[[], ResultT]) -> ResultT:
        """Work that reads content, made again where a connection breaks over it."""
        return work() if self.is_local else retries.again(work, limit=self.config.retries, what=self.describe(path))

    @contextmanager
    def _explain(self, path: str) -> Iterator[None]:
        """Turn what a store can answer into an error that says what to do; absent files stay FileNotFoundError."""
        try:
            yield
        except (FileNotFoundError, FileExistsError, StorageError) as error:
            if not isinstance(error, FileNotFoundError) or is_absent(error):
                raise
            raise cast("StorageError", explained(error, self.describe(path))) from error
        except Exception as error:
            told = explained(self._with_reason(path, error), self.describe(path))
            if told is None:
                raise
            raise told from error

    def _with_reason(self, path: str, error: Exception) -> Exception:
        """The error or, where S3 gave no reason (it gives none to HEAD), the one that it gives to a listing."""
        if not (self._is_s3 and code_of(error) in BARE_CODES):
            return error
        bucket, key, _ = self._fs.split_path(self._full(path))
        try:
            self._fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1)
        except Exception as told:  # noqa: BLE001 - it is returned
            return told
        return error


def _remote_info(entry: dict[str, Any]) -> FileInfo:
    version = entry.get("ETag") or entry.get("etag") or entry.get("created") or entry.get("size")
    return FileInfo(size=int(entry["size"] or 0), version=str(version).strip('"'))
