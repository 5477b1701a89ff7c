"""Which driver trains into an output: of two, the one that started last. The other notices when it wants to write."""

from __future__ import annotations

import json
import uuid

from wsss_ray.storage.storage import Storage

DRIVER_FILE = "driver.json"


def take_over(output: Storage) -> str:
    """Make this driver the one of the output; returns its id."""
    driver = uuid.uuid4().hex
    output.write(DRIVER_FILE, json.dumps({"driver": driver}).encode())
    return driver


def read_driver(output: Storage) -> str | None:
    """Id of the driver that the output belongs to now."""
    try:
        return str(json.loads(output.read(DRIVER_FILE))["driver"])
    except FileNotFoundError:
        return None
