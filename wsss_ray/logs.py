"""Log lines that a person and a log collector can read: what happened, then where, as fields.

    2026-05-01T12:00:00.123Z WARNING wsss_ray.engine.worker: going on alone | stage=label unit=shard-...

With WSSS_RAY_LOG=json each line is a JSON object of the same fields instead. Secrets are masked in either form.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time

from wsss_ray.redaction import masked

FORMAT_VARIABLE = "WSSS_RAY_LOG"
FIELDS = ("stage", "unit", "image", "node")
"""What a line may say of where it comes from: pass it as `extra={"unit": ...}`."""


class FieldFormatter(logging.Formatter):
    """Message and fields, as text or as JSON."""

    def __init__(self, *, as_json: bool) -> None:
        """Choose the form."""
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback follows it in text, and is a field in JSON."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        fields = {name: str(getattr(record, name)) for name in FIELDS if getattr(record, name, None) is not None}
        trace = self.formatException(record.exc_info) if record.exc_info else None
        if self._as_json:
            line = {"time": when, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
            return masked(json.dumps({**line, **fields, **({"traceback": trace} if trace else {})}))
        where = " ".join(f"{name}={_quoted(value)}" for name, value in fields.items())
        text = f"{when} {record.levelname} {record.name}: {record.getMessage()}" + (f" | {where}" if where else "")
        return masked(text if trace is None else f"{text}\n{trace}")


def configure(level: int = logging.INFO) -> None:
    """Make this process log in our form, on standard error; calling it again changes nothing.

    For the driver and, from warnings on, for Ray's workers: Ray carries their lines to the driver's output and the
    job's log.
    """
    root = logging.getLogger()
    if any(isinstance(handler.formatter, FieldFormatter) for handler in root.handlers):
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FieldFormatter(as_json=os.environ.get(FORMAT_VARIABLE) == "json"))
    root.addHandler(handler)
    root.setLevel(level)


def _quoted(value: str) -> str:
    return value if value and not any(character in value for character in ' "=|\n') else json.dumps(value)
