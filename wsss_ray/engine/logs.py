"""Log lines for people and log collectors: what happened, then where, as fields.

    2026-05-01T12:00:00.123Z WARNING wsss_ray.engine.worker: failed: ... | stage=label unit=shard-...

With WSSS_RAY_LOG=json each line is a JSON object of the same fields instead. Secrets are masked in either form.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

from wsss_ray.errors import JobError
from wsss_ray.storage.redaction import masked

logger = logging.getLogger(__name__)

FORMAT_VARIABLE = "WSSS_RAY_LOG"
FIELDS = ("stage", "unit", "image")
"""Fields that say where a line comes from: set by `at`, or by `extra={"image": ...}` of the line itself."""

_SILENT = (
    "ray._private.authentication.authentication_token_setup",  # "Token authentication is enabled", Ray's default
    "ray.data._internal.progress",  # "Progress bars disabled": the status line replaces them
    "huggingface_hub",  # "unauthenticated requests to the HF Hub"
)
"""Loggers whose warnings do not concern the user of a job: only their errors are shown."""

_RAY_LINES = r"Progress bars disabled|Dataset \S+ execution finished"
"""Lines of actors that Ray Data starts itself, and where this module sets no levels: Ray's driver leaves them out."""

_here: ContextVar[Mapping[str, str]] = ContextVar("where log lines come from", default=MappingProxyType({}))


@contextmanager
def at(**fields: str) -> Iterator[None]:
    """Add fields to all log lines of this thread while the block runs."""
    assert set(fields) <= set(FIELDS), fields
    token = _here.set({**_here.get(), **fields})
    try:
        yield
    finally:
        _here.reset(token)


class FieldFormatter(logging.Formatter):
    """Formats message and fields as text or as JSON."""

    def __init__(self, *, as_json: bool) -> None:
        """Choose the form."""
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """Return one line; a traceback follows it in text, and is a field in JSON."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        said = {name: getattr(record, name, _here.get().get(name)) for name in FIELDS}
        fields = {name: str(value) for name, value in said.items() if value is not None}
        trace = self.formatException(record.exc_info) if record.exc_info else None
        if self._as_json:
            line = {"time": when, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
            return masked(json.dumps({**line, **fields, **({"traceback": trace} if trace else {})}))
        where = " ".join(f"{name}={_quoted(value)}" for name, value in fields.items())
        text = f"{when} {record.levelname} {record.name}: {record.getMessage()}" + (f" | {where}" if where else "")
        return masked(text if trace is None else f"{text}\n{trace}")


def configure() -> None:
    """Let this process log in this form on standard error, libraries from warnings on. A second call changes nothing.

    For the driver and for Ray's workers, whose lines Ray carries to the driver's output and the job's log.
    """
    root = logging.getLogger()
    if any(isinstance(handler.formatter, FieldFormatter) for handler in root.handlers):
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FieldFormatter(as_json=os.environ.get(FORMAT_VARIABLE) == "json"))
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("wsss_ray").setLevel(logging.INFO)
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", _RAY_LINES)  # read when Ray is imported
    logging.raiseExceptions = False  # a log on a full disk would print a traceback for each line it cannot write
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.ERROR)


def failure(message: str, error: Exception, *, expected: tuple[type[Exception], ...] = (OSError, JobError)) -> None:
    """Log an exception that ends the run, without its traceback where the text is enough (a full disk)."""
    if isinstance(error, expected):
        logger.error("%s: %s", message, error)
    else:
        logger.error(message, exc_info=error)


def _quoted(value: str) -> str:
    return value if value and not any(character in value for character in ' "=|\n') else json.dumps(value)
