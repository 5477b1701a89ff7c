"""Mask the secrets in the texts of libraries, which quote addresses and keys."""

from __future__ import annotations

import os
import re

_VARIABLES = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY", re.IGNORECASE)
_SHORTEST = 10
"""Length from which a variable's value counts as a secret: shorter ones are words such as "testing"."""

_USER = re.compile(r"(?<=://)(?:[^/\s\"]+|[^/\s@\"':]+:(?!\d+/)[^\s\"?]+)@|(?<=s3://)[^/\s:\"]+:[^\s\"]+@")
"""A user, or a user and password, to the last "@": nearly every other key of AWS holds a slash."""
_QUERY = re.compile(r"(\b(?:https?|s3a?|gs)://[^\s\"'?]+)\?[^\s\"']*[^\s\"':;,.)]")
_SIGNATURE = re.compile(r"(?i)\b((?:x-amz-[a-z-]+|signature|awsaccesskeyid|sig|access_token)=)[^&\s\"']+")
_KEY_ID = re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b")


def masked(text: str) -> str:
    """Return the text with "***" for its secrets: users and queries of URLs, signatures, keys and tokens."""
    text = _QUERY.sub(r"\1?***", _USER.sub("***@", text))
    text = _KEY_ID.sub("***", _SIGNATURE.sub(r"\1***", text))
    for name, value in os.environ.items():
        is_path = name.endswith(("_PATH", "_FILE"))
        if len(value) >= _SHORTEST and _VARIABLES.search(name) and not is_path and value in text:
            text = text.replace(value, "***")
    return text
