"""The driver that trains into an output: of two, the one that started last. The other one stops before it writes."""

from __future__ import annotations

import uuid

from wsss_ray.storage.json_files import encode_json, read_json
from wsss_ray.storage.storage import Storage

DRIVER_FILE = "driver.json"


def take_over(output: Storage) -> str:
    """Make this driver the owner of the output; return its id."""
    driver = uuid.uuid4().hex
    output.write(DRIVER_FILE, encode_json({"driver": driver}))
    return driver


def read_driver(output: Storage) -> str | None:
    """Return the id of the driver that owns the output; None without such a file.

    Raises:
        ValueError: the file is damaged; names it.
    """
    try:
        content = read_json(output, DRIVER_FILE)
    except FileNotFoundError:
        return None
    if not isinstance(content.get("driver"), str):
        raise ValueError(f"{output.describe(DRIVER_FILE)} is damaged: it names no driver.")  # noqa: TRY004 - a file, not an argument
    return str(content["driver"])
