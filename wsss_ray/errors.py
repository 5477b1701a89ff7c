"""Errors that end a job, and what their texts share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class JobError(RuntimeError):
    """A job that ended without reaching its goal; the text says what happened, what stands and what to do."""


class Terminated(BaseException):
    """SIGTERM, as `ray job stop` and schedulers send it."""


def suggest(name: str, valid: Iterable[str], *, prefix: str = "") -> str:
    """Return " Did you mean `x`?" for the nearest valid name, or nothing where none is near; for the end of an error.

    Args:
        name: the name that is not valid.
        valid: the valid ones.
        prefix: goes before the suggested name.
    """
    near = difflib.get_close_matches(name, valid, n=1)
    return f" Did you mean `{prefix}{near[0]}`?" if near else ""
