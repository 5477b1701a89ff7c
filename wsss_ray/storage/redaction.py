"""Keep secrets out of messages, logs and files.

Addresses with a user or password are refused as input (`refuse_credentials`) and printed as host and path
(`shown`). Texts of libraries, which quote addresses and keys, pass through `masked`.
"""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

_VARIABLES = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY", re.IGNORECASE)
_SHORTEST = 10
"""Length from which a variable's value counts as a secret: shorter ones are words such as "testing"."""

_USER = re.compile(r"(?<=://)(?:[^/\s\"]+|[^/\s@\"':]+:(?!\d+/)[^\s\"?]+)@|(?<=s3://)[^/\s:\"]+:[^\s\"]+@")
"""A user, or a user and password, to the last "@": nearly every other key of AWS holds a slash."""
_QUERY = re.compile(r"(\b(?:https?|s3a?|gs)://[^\s\"'?]+)\?[^\s\"']*[^\s\"':;,.)]")
_SIGNATURE = re.compile(r"(?i)\b((?:x-amz-[a-z-]+|signature|awsaccesskeyid|sig|access_token)=)[^&\s\"']+")
_KEY_ID = re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BUCKET = re.compile(r"[A-Za-z0-9._-]*|arn:aws[A-Za-z0-9:-]*")
"""The host part of an `s3://` URI: a bucket, or an access point."""
_STORES = ("s3", "s3a", "gs", "gcs")
_WEB = ("http", "https")


def masked(text: str) -> str:
    """Return the text with "***" for its secrets: users and queries of URLs, signatures, keys and tokens."""
    text = _QUERY.sub(r"\1?***", _USER.sub("***@", text))
    text = _KEY_ID.sub("***", _SIGNATURE.sub(r"\1***", text))
    for name, value in os.environ.items():
        is_path = name.endswith(("_PATH", "_FILE"))
        if len(value) >= _SHORTEST and _VARIABLES.search(name) and not is_path and value in text:
            text = text.replace(value, "***")
    return text


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
