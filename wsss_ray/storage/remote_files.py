"""Files in an object store: list prefixes, and write objects in one PUT, conditional where needed."""

from __future__ import annotations

import logging
import mimetypes
import uuid
from typing import Any, BinaryIO, cast

from wsss_ray.storage.errors import BARE_CODES, code_of, is_absent
from wsss_ray.storage.local_files import FileInfo

logger = logging.getLogger(__name__)

_SINGLE_PUT_BYTES = 4 * 2**30
"""S3 takes 5 GB in one PUT; conditional multipart uploads do not work everywhere, so it is one PUT."""


class RemoteFiles:
    """Files of an fsspec file system by full path."""

    def __init__(self, file_system: Any, uri: str) -> None:
        """Wrap a file system.

        Args:
            file_system: fsspec's.
            uri: root of the storage, for its scheme and for messages.
        """
        self._fs = file_system
        self._uri = uri
        self._is_s3 = uri.startswith(("s3://", "s3a://"))

    def read(self, path: str) -> bytes:
        """Return the whole content."""
        # Otherwise s3fs requests the size first, to read large files in parts: a second request for each small one.
        options = {"max_concurrency": 1} if self._is_s3 else {}
        return cast("bytes", self._fs.cat_file(path, **options))

    def read_end(self, path: str, size: int) -> bytes:
        """Return the last bytes, all where there are fewer; one request of S3."""
        if not self._is_s3:
            return self.read(path)[-size:]
        try:
            return cast("bytes", self._fs.cat_file(path, start=-size))
        except OSError as error:
            if code_of(error) == "InvalidRange":  # an empty file has no last byte
                return b""
            raise

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading at any position."""
        return cast("BinaryIO", self._fs.open(path, "rb", cache_type="readahead", block_size=2**20))

    def info(self, path: str) -> FileInfo:
        """Return size and version; raises FileNotFoundError."""
        return _info_of(self._fs.info(path))

    def list(self, folder: str) -> dict[str, FileInfo]:
        """Return the files directly in a folder by name."""
        entries = (entry for entry in self._entries(folder) if not _is_folder(entry))
        return {entry["name"].rsplit("/", 1)[-1]: _info_of(entry) for entry in entries}

    def folders(self, folder: str) -> set[str]:
        """Return the names of the folders directly in a folder."""
        paths = (entry["name"].rstrip("/") for entry in self._entries(folder) if _is_folder(entry))
        return {path.rsplit("/", 1)[-1] for path in paths if path != folder}

    def _entries(self, folder: str) -> tuple[dict[str, Any], ...]:
        try:
            return tuple(self._fs.ls(folder, detail=True))
        except (FileNotFoundError, NotADirectoryError) as error:
            if isinstance(error, NotADirectoryError) or is_absent(error):
                return ()
            raise

    def walk(self, root: str) -> dict[str, FileInfo]:
        """Return all files below a root by relative path, without dot-files and what dot-folders hold."""
        try:
            found = cast("dict[str, Any]", self._fs.find(root, detail=True))
        except FileNotFoundError as error:
            if is_absent(error):
                return {}
            raise
        files = {}
        for name, entry in found.items():
            path = name.removeprefix(root).lstrip("/")
            hidden = any(part.startswith(".") for part in path.split("/"))
            if path and not hidden and not _is_folder(entry):
                files[path] = _info_of(entry)
        return files

    def write(self, path: str, data: bytes) -> None:
        """Write a file in one request."""
        self._fs.pipe_file(path, data, **self._put_options(path))

    def upload(self, source: str, path: str) -> None:
        """Send a local file."""
        self._fs.put_file(source, path, **self._content_type(path))

    def remove(self, path: str) -> None:
        """Remove a file."""
        self._fs.rm_file(path)

    def write_if(self, path: str, data: bytes, version: str | None) -> bool:
        """Write a file if it still is this version or, for None, if there is none; return whether this call wrote it.

        A mark in the metadata names the writer: if an answer was lost, the repeated request recognizes its own write.
        """
        if not self._is_s3:
            return self._write_after_check(path, data, version)
        mark = uuid.uuid4().hex
        condition = {"mode": "create"} if version is None else {"IfMatch": f'"{version}"'}
        try:
            self._fs.pipe_file(path, data, Metadata={"writer": mark}, **condition, **self._put_options(path))
        except OSError as error:
            code = code_of(error)
            if isinstance(error, FileNotFoundError) and version is not None:
                return False
            if isinstance(error, FileExistsError) or code in {"PreconditionFailed", "412"}:
                return bool(self._fs.metadata(path).get("writer") == mark)
            if code not in {"NotImplemented", "501"}:
                raise
            logger.warning("%s: this store has no conditional writes: two runs at once may collide.", self._uri)
            return self._write_after_check(path, data, version)
        return True

    def _write_after_check(self, path: str, data: bytes, version: str | None) -> bool:
        """Write as `write_if` on a store without conditions; two writers at the same moment both write."""
        try:
            found: str | None = self.info(path).version
        except FileNotFoundError as error:
            if not is_absent(error):
                raise
            found = None
        if found != version:
            return False
        self.write(path, data)
        return True

    def reason(self, path: str, error: Exception) -> Exception:
        """Return the error or, where S3 gave no reason (it gives none to HEAD), the one that it gives to a listing."""
        if not (self._is_s3 and code_of(error) in BARE_CODES):
            return error
        bucket, key, _ = self._fs.split_path(path)
        try:
            self._fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1)
        except Exception as reason:  # noqa: BLE001 - it is returned
            return reason
        return error

    def _put_options(self, path: str) -> dict[str, Any]:
        """Return the options that make s3fs send one PUT."""
        return {"chunksize": _SINGLE_PUT_BYTES // 2, **self._content_type(path)} if self._is_s3 else {}

    def _content_type(self, path: str) -> dict[str, str]:
        """Return the type that a browser needs to show a file of S3 instead of saving it."""
        kind = mimetypes.guess_type(path)[0]
        return {"ContentType": kind} if kind and self._is_s3 else {}


def _is_folder(entry: dict[str, Any]) -> bool:
    """Return whether an entry is a folder, or the empty object that marks one."""
    return entry["type"] == "directory" or str(entry["name"]).endswith("/")


def _info_of(entry: dict[str, Any]) -> FileInfo:
    version = entry.get("ETag") or entry.get("etag") or entry.get("created") or entry.get("size")
    return FileInfo(size=int(entry["size"] or 0), version=str(version).strip('"'))
