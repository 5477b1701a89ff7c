"""Image ids that follow from the images' paths."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from wsss_ray.shards.row_checks import MAX_ID_BYTES, check_image_id

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_HASH_DIGITS = 32


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
