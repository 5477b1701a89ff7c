"""JSON files that notice damage: each holds a digest of its own content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from wsss_ray.storage.storage import Storage

DIGEST_KEY = "sha256"
_FEW_BITS = 3


def encode_json(content: Mapping[str, Any]) -> bytes:
    """Return the text of a JSON object, in UTF-8, with the digest of its content as its last key."""
    assert DIGEST_KEY not in content, "the key is the digest's"
    values = json.loads(json.dumps(content))  # keys as they are read
    text = json.dumps({**values, DIGEST_KEY: _digest(values)}, indent=2, ensure_ascii=False)
    return f"{text}\n".encode(errors="backslashreplace")  # file names may hold what UTF-8 cannot: JSON escapes


def decode_json(data: bytes, name: str) -> dict[str, Any]:
    """Return the content of a JSON file without its digest. A file without a digest is not verified.

    Args:
        data: the file's bytes.
        name: what the file is called in the error.

    Raises:
        ValueError: it is no JSON object, or its content has changed.
    """
    try:
        content = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ValueError(f"{name} is damaged or no JSON: {reason}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{name} is damaged: it holds no JSON object.")  # noqa: TRY004 - a file, not an argument
    digest = content.pop(DIGEST_KEY, None)
    if (digest is not None and digest != _digest(content)) or any(map(_is_damaged_key, content)):
        raise ValueError(f"{name} is damaged or was edited: its content does not match its digest.")
    return content


def read_json(storage: Storage, path: str) -> dict[str, Any]:
    """Read a file that `encode_json` wrote.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it is damaged; names the file.
    """
    return decode_json(storage.read(path), storage.describe(path))


def _is_damaged_key(key: str) -> bool:
    """Return whether a key is the digest's but for a few bits: such a file was not written without a digest."""
    written, found = DIGEST_KEY.encode(), key.encode(errors="replace")
    bits = sum((a ^ b).bit_count() for a, b in zip(written, found, strict=False))
    return len(written) == len(found) and bits <= _FEW_BITS


def _digest(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of the values, whatever the order of the keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
