"""A run's directory: the configuration it was claimed for, and which units are finished in it. Needs no Ray."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from wsss_ray.shards.image_shards import ShardSet
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage

RUN_FILE = "run.json"
"""Says what the directory was claimed for."""


def claim(
    output: Storage, identity: Mapping[str, Any], *, shards: ShardSet | None = None, results: str = "labels"
) -> bool:
    """Claim the run directory for a configuration, or join it.

    Args:
        output: run directory.
        identity: everything that changes results, as nested JSON values, the shards' digest as "shards" among them.
        shards: what is to be worked on, so that shards that were replaced can be named.
        results: folder of what the run makes, and the word for it.

    Returns:
        Whether the directory is new; False where it holds a run of the same identity.

    Raises:
        ValueError: it holds a run of another identity, whose differing fields are named, or results of unknown origin.
    """
    text = json.dumps(identity, indent=2, sort_keys=True)
    if not output.exists(RUN_FILE) and output.list(results):
        raise ValueError(
            f"{output.uri} holds {results}, but no {RUN_FILE} that says how they were made: use another --output."
        )
    if output.create(RUN_FILE, text.encode()):
        return True
    try:
        before = json.loads(output.read(RUN_FILE))
    except json.JSONDecodeError as error:
        raise ValueError(f"{output.describe(RUN_FILE)} is not JSON ({error}): it is no run of wsss_ray.") from error
    lines = _differences(before, json.loads(text), "")
    if shards is not None:
        lines = [line + _replaced(output, shards) if line.startswith("shards: ") else line for line in lines]
    if lines:
        raise ValueError(
            f"{output.uri} holds a run with another configuration; its {results} would be mixed with different ones. "
            f"Use another --output, or the configuration of that run{_if_empty(output, results)}. What differs (there "
            "-> here):\n  " + "\n  ".join(lines)
        )
    return False


def _if_empty(output: Storage, results: str) -> str:
    if output.list(results):
        return ""
    return f"; it holds no {results} yet, so removing {output.describe(RUN_FILE)} is safe"


def _replaced(output: Storage, shards: ShardSet) -> str:
    """Which shards are not what was labelled, as far as the names of the label files tell."""
    now = {unit.name.rpartition("-")[0]: unit for unit in shards.units}
    names = set()
    for file in output.list("labels"):
        name = file.removesuffix(".parquet")
        place = name.rpartition("-")[0]
        if place not in now:
            names.add(f"{place.rpartition('-')[0]}.parquet (gone)")
        elif now[place].name != name:
            names.add(now[place].shard)
    if not names:
        return ""
    shown = ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"; of other content than what was labelled: {shown}"


def _differences(before: Any, now: Any, prefix: str) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        lines = []
        for key in sorted(before.keys() | now.keys()):
            lines += _differences(before.get(key), now.get(key), f"{prefix}.{key}" if prefix else key)
        return lines
    return [] if before == now else [f"{prefix}: {_short(before)} -> {_short(now)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def units_to_do(shards: ShardSet, output: Storage, *, limit: int | None) -> tuple[list[Unit], list[Unit]]:
    """Split the units (the first ones that hold `limit` images) into those with a label file and those without.

    Returns:
        Finished units, units to do; both in order.
    """
    chosen = []
    images = 0
    for unit in shards.units:
        if limit is not None and images >= limit:
            break
        chosen.append(unit)
        images += unit.rows
    there = {f"labels/{name}" for name in output.list("labels")}
    return [u for u in chosen if u.label_path in there], [u for u in chosen if u.label_path not in there]
