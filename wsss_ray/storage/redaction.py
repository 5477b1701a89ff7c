"""Keeping secrets out of what is printed, logged and written.

URIs with a user and password are refused where they come in (`refuse_credentials`); whatever is told passes `masked`,
because texts of libraries quote addresses and keys that nobody put there on purpose.
"""

from __future__ import annotations

import os
import re

_VARIABLES = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY", re.IGNORECASE)
_SHORTEST = 10
"""Characters from which on a variable's value is taken for a secret: shorter ones are words such as "testing"."""

_USER = re.compile(r"(?<=://)(?:[^/\s@\"']+|[^/\s@\"':]+:(?!\d+/)[^\s@\"'?]+)@")
"""A user, or a user and password, in which a slash is no end: nearly every other key of AWS's holds one."""
_QUERY = re.compile(r"(\b(?:https?|s3a?|gs)://[^\s\"'?]+)\?[^\s\"']*[^\s\"':;,.)]")
_SIGNATURE = re.compile(r"(?i)\b((?:x-amz-[a-z-]+|signature|awsaccesskeyid|sig|access_token)=)[^&\s\"']+")
_KEY_ID = re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b")


def masked(text: str) -> str:
    """The text with "***" for its secrets: users and queries of URLs, signatures, keys and tokens."""
    text = _QUERY.sub(r"\1?***", _USER.sub("***@", text))
    text = _KEY_ID.sub("***", _SIGNATURE.sub(r"\1***", text))
    for name, value in os.environ.items():
        is_place = name.endswith(("_PATH", "_FILE"))
        if len(value) >= _SHORTEST and _VARIABLES.search(name) and not is_place and value in text:
            text = text.replace(value, "***")
    return text


def refuse_credentials(uri: str) -> None:
    """Raise ValueError, without the secret in its text, for a URI that holds a user and password."""
    if _USER.search(uri):
        raise ValueError(
            f"{masked(uri)}: an address must not hold a user or password, since it is shown and kept in many places. "
            "Give keys in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), a profile or an instance role."
        )
