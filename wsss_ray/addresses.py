"""Local paths, URIs and hub ids. Needs nothing but the standard library.

Addresses with a user or password are refused where they come in (`refuse_credentials`) and printed as host and path
(`shown`).
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BUCKET = re.compile(r"[A-Za-z0-9._-]*|arn:aws[A-Za-z0-9:-]*")
"""The host part of an `s3://` URI: a bucket, or an access point."""
_STORES = ("s3", "s3a", "gs", "gcs")
_WEB = ("http", "https")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_uri(path: str) -> bool:
    """Return whether the path names a store other than this machine's disk."""
    return "://" in path and not path.startswith("file://")


def local_path(path: str) -> Path:
    """Return a path of this machine, which may begin with file:// or ~."""
    return Path(path.removeprefix("file://")).expanduser()


def is_hub_id(name: str) -> bool:
    """Return whether the name has the form of a hub id, owner/name."""
    return _HUB_ID.fullmatch(name) is not None


def refuse_credentials(address: str) -> None:
    """Refuse an address that holds a user or password; the error shows neither. A local path is always accepted.

    Raises:
        ValueError: it holds one, or is none that can be used.
    """
    for match in _SCHEME.finditer(address):  # more than one where fsspec's file systems are chained
        if not _is_plain(address[match.start() :]):
            raise ValueError(
                f"{_without_user(address)}: an address must not hold a user or password, since it is shown and "
                "stored, and its host must be a plain one. Give keys in the environment (AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY), a profile or an instance role."
            )
    if address.startswith(tuple(f"{scheme}://" for scheme in _WEB)) and re.search(r"\s", address):
        raise ValueError(f"{shown(address)}: an address must not hold spaces: write %20.")  # else urllib shows it whole


def shown(address: str) -> str:
    """Return an address for messages: a local path as it is; of a URI the scheme, host and path."""
    if not _SCHEME.match(address):
        return address
    if not _is_plain(address):
        return _without_user(address)
    parts = urlsplit(address)
    if parts.scheme not in _WEB:  # where "?" and "#" are parts of a file's name
        return address
    path, query, _ = address.partition("?")
    return path.partition("#")[0] + ("?***" if query else "")


def _is_plain(address: str) -> bool:
    """Return whether an address has a host (of S3: a bucket) without a user or password."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:  # of a port or a host that is none; its text would show it
        return False
    if parts.scheme in _STORES:
        return _BUCKET.fullmatch(parts.netloc) is not None
    return "@" not in parts.netloc and (port is None or bool(parts.hostname))


def _without_user(address: str) -> str:
    """Return scheme and what follows the last "@" of an address that must not be shown whole."""
    scheme = address.partition("://")[0]
    return f"{scheme}://***" + (f"@{address.rpartition('@')[2].partition('?')[0]}" if "@" in address else "")
