"""Errors that end a job, and what their texts share."""

from __future__ import annotations

import difflib
import signal
import threading
from collections.abc import Iterable


class JobError(RuntimeError):
    """A job that ended without reaching its goal; the text says what happened, what is kept and what to do."""


class CheckpointError(ValueError):
    """The weights of a model are missing, damaged or of another model; the text says what to do."""


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


INTERRUPTED = "interrupted: finished work is kept; the same command continues from there."
"""Last line of a command that a signal ended."""

is_terminating = threading.Event()
"""Set once SIGTERM has come."""


def unwind_on_sigterm() -> None:
    """Let SIGTERM unwind the process as an interrupt does, where this is the main thread.

    Called when the command starts, and again once Ray is connected, which installs a handler of its own.
    """

    def terminate(number: int, frame: object) -> None:  # noqa: ARG001 - the signature of signal handlers
        if not is_terminating.is_set():  # a second signal would break the unwinding
            is_terminating.set()
            raise Terminated

    if threading.current_thread() is threading.main_thread():
        is_terminating.clear()  # of a job before, in a process that continued
        signal.signal(signal.SIGTERM, terminate)


def one_line(text: str) -> str:
    """Return a text of several lines as one: the reason of a failed job is the last line of its log."""
    joined = ""
    for line in filter(None, map(str.strip, text.splitlines())):
        joined += f"{' ' if joined.endswith(('.', ':', ';', ',')) else '; '}{line}" if joined else line
    return joined
