"""Find the drivers at work in an output directory: each keeps a file there while it runs."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wsss_ray.storage.json_files import encode_json, read_json
from wsss_ray.storage.storage import Storage

DRIVER_PREFIX = "driver-"


@contextmanager
def record_driver(output: Storage) -> Iterator[None]:
    """Keep a file in the directory until the context ends, and remove those of killed drivers of this machine."""
    find_drivers(output)
    record = _describe(os.getpid())
    path = f"{DRIVER_PREFIX}{record['host']}-{record['process']}.json"
    output.write(path, encode_json(record), durable=False)
    try:
        yield
    finally:
        output.remove(path)


def find_drivers(output: Storage) -> list[str]:
    """Return a line for each driver that is at work in the directory, or may be; remove the files of those that ended.

    Processes of this machine are looked up. A driver on another machine counts as being at work.
    """
    lines = []
    for path in [name for name in output.list() if name.startswith(DRIVER_PREFIX)]:
        try:
            record = read_json(output, path)
        except (FileNotFoundError, ValueError):
            record = {}
        if record == _describe(os.getpid()):
            continue
        if record.get("host") == socket.gethostname() and record != _describe(record.get("process")):
            output.remove(path)
            continue
        lines.append(
            f"A driver is at work there: process {record.get('process')} on {record.get('host')}. If it has ended, "
            f"remove {output.describe(path)}."
        )
    return lines


def _describe(process: Any) -> dict[str, Any]:
    """Return an id of a process on this machine that a later process with the same number does not have."""
    return {"host": socket.gethostname(), "process": process, "started": _started(process)}


def _started(process: Any) -> str | None:
    """Return the boot and the start time of a process of this machine; None where it does not exist."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        fields = Path(f"/proc/{process:d}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return f"{boot} {fields[19]}"
    except (OSError, ValueError, TypeError, IndexError):
        return None if not isinstance(process, int) or not _exists(process) else "running"


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
