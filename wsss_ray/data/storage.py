"""One room for files: the same calls for a local directory and for any fsspec URI (`s3://` above all).

What a run relies on: a file appears whole or not at all (`write`), a file can be claimed once (`create`), and a file
is replaced only if it is still the one that was read (`replace`). Local files are written under a dot-name, synced and
renamed; on S3 each is one PUT, conditional where it must be.
"""

from __future__ import annotations

import errno
import fcntl
import mimetypes
import os
import random
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from wsss_ray.config import StorageConfig

_SINGLE_PUT_BYTES = 4 * 2**30
"""S3 takes 5 GB in one PUT; a conditional multipart upload is not known everywhere, so one PUT it is."""
_RETRIES = 10


class StorageError(OSError):
    """A file or store that cannot be used; the text says which, why and what to do."""


@dataclass(frozen=True, kw_only=True)
class FileInfo:
    """A listed file."""

    size: int
    """Bytes."""
    version: str
    """Changes when the file is replaced: ETag on S3, inode, size and modification time on disk."""


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
            ValueError: the URI's scheme is unknown or its package is missing.
        """
        if not uri:
            raise ValueError("an empty path was given where a directory or URI is needed.")
        self.config = config or StorageConfig()
        self._uri = uri
        self._connect()

    def _connect(self) -> None:
        options: dict[str, Any] = {}
        if self._uri.startswith(("s3://", "s3a://")):
            client = {"endpoint_url": self.config.endpoint_url, "region_name": self.config.region}
            options = {
                "profile": self.config.profile,
                "client_kwargs": {key: value for key, value in client.items() if value},
                "config_kwargs": {"retries": {"mode": "standard", "max_attempts": _RETRIES}},
                "use_listings_cache": False,
            }
        try:
            self._fs, root = fsspec.core.url_to_fs(
                self._uri if "://" in self._uri else str(Path(self._uri).expanduser().absolute()), **options
            )
        except (ValueError, ImportError) as error:
            raise ValueError(f"cannot use {self._uri!r}: {error}") from error
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
        with self._explain(path):
            return cast("bytes", self._fs.cat_file(self._full(path)))

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading at random places (Parquet footers and row groups)."""
        with self._explain(path):
            return cast("BinaryIO", self._fs.open(self._full(path), "rb", **self._read_ahead()))

    def info(self, path: str) -> FileInfo | None:
        """Size and version of a file, or None where there is none."""
        with self._explain(path):
            try:
                return self._file_info(self._fs.info(self._full(path)))
            except FileNotFoundError:
                return None

    def exists(self, path: str) -> bool:
        """Whether the file is there."""
        return self.info(path) is not None

    def list(self, folder: str = "") -> dict[str, FileInfo]:
        """Files directly in a folder, by name, sorted, without dot-files (unfinished); no folder is an empty one."""
        files: dict[str, FileInfo] = {}
        with self._explain(folder):
            try:
                for entry in self._fs.ls(self._full(folder), detail=True):
                    name = entry["name"].rsplit("/", 1)[-1]
                    if name and not name.startswith(".") and self._is_file(entry):
                        with suppress(FileNotFoundError):  # removed since it was listed
                            files[name] = self._file_info(entry)
            except (FileNotFoundError, NotADirectoryError):
                return {}
        return dict(sorted(files.items()))

    def folders(self, folder: str = "") -> tuple[str, ...]:
        """Names of the folders directly in a folder, sorted, without dot-folders."""
        with self._explain(folder):
            try:
                entries = self._fs.ls(self._full(folder), detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return ()
            paths = [entry["name"].rstrip("/") for entry in entries if self._is_folder(entry)]
        names = {path.rsplit("/", 1)[-1] for path in paths}
        return tuple(sorted(name for name in names if not name.startswith(".")))

    def walk(self, *, on_skipped: Callable[[str, str], None] | None = None) -> dict[str, FileInfo]:
        """All files below the root, by path relative to it, sorted; dot-files and what dot-folders hold are left out.

        Args:
            on_skipped: called with the path and the reason ("linked folder", "broken link") of what is not entered: a
                linked folder may lead out of the root, or round in a circle.
        """
        files: dict[str, FileInfo] = {}
        with self._explain(""):
            if self.is_local:
                files.update(self._walk_local(on_skipped))
            else:
                with suppress(FileNotFoundError):
                    for name, entry in self._fs.find(self._root, detail=True).items():
                        path = name.removeprefix(self._root).lstrip("/")
                        hidden = any(part.startswith(".") for part in path.split("/"))
                        if path and not hidden and not self._is_folder(entry):
                            files[path] = self._file_info(entry)
        return dict(sorted(files.items()))

    def _walk_local(self, on_skipped: Callable[[str, str], None] | None) -> Iterator[tuple[str, FileInfo]]:
        def fail(error: OSError) -> None:  # os.walk alone would pass over what it cannot read
            if not (isinstance(error, FileNotFoundError) and error.filename == self._root):
                raise error

        for folder, names, files in os.walk(self._root, onerror=fail):
            prefix = "" if folder == self._root else f"{Path(folder).relative_to(self._root).as_posix()}/"
            names[:] = [name for name in names if not name.startswith(".")]
            for name in names:
                if on_skipped and (Path(folder) / name).is_symlink():
                    on_skipped(prefix + name, "linked folder")
            for name in files:
                if not name.startswith("."):
                    try:
                        yield prefix + name, self._file_info({"name": f"{folder}/{name}"})
                    except OSError as error:
                        if error.errno not in (errno.ENOENT, errno.ELOOP):
                            raise
                        if on_skipped:
                            on_skipped(prefix + name, "broken link")

    def _is_file(self, entry: dict[str, Any]) -> bool:
        """Whether a listed entry is a file; on disk through links."""
        return Path(entry["name"]).is_file() if self.is_local else entry["type"] == "file"

    def _is_folder(self, entry: dict[str, Any]) -> bool:
        """Whether a listed entry is a folder: on disk through links, on S3 also the empty object that marks one."""
        if self.is_local:
            return Path(entry["name"]).is_dir()
        return entry["type"] == "directory" or str(entry["name"]).endswith("/")

    def write(self, path: str, data: bytes, *, durable: bool = True) -> None:
        """Write a file whole and atomically; one that is there is replaced.

        `durable`: it also survives a loss of power, at some milliseconds a file; not needed for what can be made again.
        """
        with self._explain(path):
            if not self.is_local:
                self._fs.pipe_file(self._full(path), data, **self._put_options(path))
                return
            with self._unfinished(path, data, durable=durable) as temporary:
                temporary.replace(self._full(path))
                if durable:
                    _sync_directory(temporary.parent)

    def remove(self, path: str) -> None:
        """Remove a file, of a link the link; one that is gone already is no error. A folder is refused or stays."""
        with self._explain(path), suppress(FileNotFoundError):
            self._fs.rm_file(self._full(path))

    @contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        """A file to write piece by piece, for content that is not to be held in memory.

        It appears whole, atomically, when the block ends, and not at all when the block raises. On S3 the content is
        collected in a temporary file of this machine and then sent.
        """
        with self._explain(path):
            if not self.is_local:
                with tempfile.NamedTemporaryFile() as spool:
                    yield cast("BinaryIO", spool)
                    spool.flush()
                    self._fs.put_file(spool.name, self._full(path))
                return
            with self._unfinished(path, b"") as temporary:
                with temporary.open("wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(self._full(path))
                _sync_directory(temporary.parent)

    def create(self, path: str, data: bytes) -> bool:
        """Write a file only if there is none, atomically.

        Returns:
            Whether this call made it; False where another did before.
        """
        with self._explain(path):
            if not self.is_local:
                return self._put_if(path, data, mode="create")
            with self._unfinished(path, data) as temporary:
                try:
                    os.link(temporary, self._full(path))  # with its content, unlike O_EXCL; fails if it exists
                except FileExistsError:
                    return False
                _sync_directory(temporary.parent)
                return True

    def replace(self, path: str, data: bytes, version: str) -> bool:
        """Replace a file only if it is still the `version` that was listed, atomically.

        Returns:
            Whether it was replaced; False where another writer came first or it is gone.
        """
        with self._explain(path):
            if not self.is_local:
                return self._replace_remote(path, data, version)
            with self._unfinished(path, data) as temporary:
                try:
                    with Path(self._full(path)).open("rb") as current:
                        fcntl.flock(current, fcntl.LOCK_EX)  # who waited here finds another inode under the name
                        info = self.info(path)
                        if info is None or info.version != version:
                            return False
                        temporary.replace(self._full(path))
                except FileNotFoundError:
                    return False
                _sync_directory(temporary.parent)
                return True

    def _replace_remote(self, path: str, data: bytes, version: str) -> bool:
        if not self._uri.startswith(("s3://", "s3a://")):
            info = self.info(path)
            if info is None or info.version != version:
                return False
            self._fs.pipe_file(self._full(path), data)
            return True
        try:
            return self._put_if(path, data, IfMatch=f'"{version}"')
        except FileNotFoundError:
            return False

    def _put_if(self, path: str, data: bytes, **condition: str) -> bool:
        """PUT under a condition; whether it held. Two that came at once (409) are told to try again."""
        for _ in range(_RETRIES):
            try:
                self._fs.pipe_file(self._full(path), data, **condition, **self._put_options(path))
            except FileExistsError:
                return False
            except OSError as error:
                # s3fs tells a failed condition from other errors only where the store names the condition.
                code = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")
                if code in {"PreconditionFailed", "412"}:
                    return False
                if code not in {"ConditionalRequestConflict", "409"}:
                    raise
                time.sleep(random.uniform(0.05, 0.5))  # noqa: S311
            else:
                return True
        raise StorageError(f"{self.describe(path)}: the store kept answering that another write is going on.")

    @contextmanager
    def _unfinished(self, path: str, data: bytes, *, durable: bool = True) -> Iterator[Path]:
        """A dot-file with the data beside the target, synced if `durable`; gone at the end unless it was renamed."""
        target = Path(self._full(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".{target.name[:100]}.{uuid.uuid4().hex}.tmp"
        try:
            with temporary.open("xb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            yield temporary
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()

    def _full(self, path: str) -> str:
        parts = path.split("/") if path else []
        if any(part in ("", ".", "..") for part in parts) or "\0" in path:
            raise ValueError(f"{path!r} is not a plain path below {self.uri}.")
        return "/".join([self._root.rstrip("/"), *parts]) if parts else self._root

    def _read_ahead(self) -> dict[str, Any]:
        return {} if self.is_local else {"cache_type": "readahead", "block_size": 2**20}

    def _put_options(self, path: str) -> dict[str, Any]:
        """One PUT on S3, with the type that a browser needs to show a file instead of saving it."""
        if not self._uri.startswith(("s3://", "s3a://")):
            return {}
        content_type = mimetypes.guess_type(path)[0]
        options: dict[str, Any] = {"chunksize": _SINGLE_PUT_BYTES // 2}
        return options if content_type is None else {**options, "ContentType": content_type}

    def _file_info(self, entry: dict[str, Any]) -> FileInfo:
        if self.is_local:
            status = Path(entry["name"]).stat()
            return FileInfo(size=status.st_size, version=f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}")
        version = entry.get("ETag") or entry.get("etag") or entry.get("created") or entry.get("size")
        return FileInfo(size=int(entry["size"] or 0), version=str(version).strip('"'))

    @contextmanager
    def _explain(self, path: str) -> Iterator[None]:
        """Turn what a store can answer into an error that says what to do; absent files stay FileNotFoundError."""
        try:
            yield
        except (FileNotFoundError, FileExistsError, StorageError) as error:
            if "bucket does not exist" in str(error).lower():
                raise StorageError(
                    f"{self.describe(path)}: the bucket does not exist; check its name and the endpoint."
                ) from error
            raise
        except PermissionError as error:
            raise StorageError(
                f"{self.describe(path)}: access denied ({error}). Check the credentials of this process (environment, "
                "profile or instance role) and that they may read and write this prefix."
            ) from error
        except OSError as error:
            raise StorageError(f"{self.describe(path)}: {error}") from error
        except Exception as error:
            if type(error).__module__.startswith(("botocore", "aiobotocore", "aiohttp")):
                raise StorageError(f"{self.describe(path)}: {type(error).__name__}: {error}") from error
            raise


def _sync_directory(directory: Path) -> None:
    """Make a rename in the directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
