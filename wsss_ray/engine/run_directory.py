"""The output directory of a job: the settings that it belongs to, the drivers at work in it, its finished units."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from wsss_ray.engine.drivers import DRIVER_PREFIX, find_drivers, record_driver
from wsss_ray.shards.image_shards import ShardSet
from wsss_ray.shards.units import Unit
from wsss_ray.storage.json_files import encode_json, read_json
from wsss_ray.storage.storage import Storage

RUN_FILE = "run.json"


@dataclass(frozen=True, kw_only=True)
class RunDirectory:
    """An output directory that belongs to one identity: the settings that decide its content.

    Several drivers of the same identity may work in it. One of another identity is refused, unless nothing is finished
    in it and no driver is at work.
    """

    storage: Storage
    claim_file: str = RUN_FILE
    """File that holds the identity."""
    content: str = "labels"
    """What the job makes, for messages."""
    content_paths: tuple[str, ...] = ("labels",)
    """Folders and files of what is finished; empty: everything but the claim."""
    explanations: Mapping[str, str] = field(default_factory=dict)
    """What to say of a setting that differs, by its dotted name; the others are shown with both values."""
    shards: ShardSet | None = None
    """The image shards of a run, so that those are named that were replaced since they were labelled."""

    def claim(self, identity: Mapping[str, Any], **notes: Any) -> bool:
        """Claim the directory for an identity, or join the run that it holds.

        Args:
            identity: everything that changes the content, as nested JSON values.
            notes: further JSON values to keep beside the identity; they may differ.

        Returns:
            Whether it was claimed; False where it holds a run of the same identity.

        Raises:
            ValueError: it holds a run of another identity, whose differing settings are named, or other files.
        """
        identity = json.loads(json.dumps(identity))
        data = encode_json({"identity": identity, **notes} if notes else identity)
        if not self.storage.exists(self.claim_file) and self._is_used():
            raise ValueError(
                f"{self.storage.uri} holds {self.content if self.content_paths else 'files'}, but no "
                f"{self.claim_file} that says how they were made: use another --output."
            )
        if self.storage.create(self.claim_file, data):
            return True
        damage = None
        try:
            lines = self._differences(identity)
        except ValueError as error:
            damage = str(error)
        if damage is None and not lines:
            return False
        drivers = [] if self._is_used() else find_drivers(self.storage)
        if not drivers and not self._is_used():
            drivers = self._replace_claim(data)
            if not drivers:
                print(
                    f"{self.storage.uri} is claimed for this run: its earlier run ended and finished nothing.",
                    flush=True,
                )
                return True
        if damage is not None:
            raise ValueError(f"{damage} Its {self.content} cannot be continued: use another --output.")
        raise ValueError(
            f"{self.storage.uri} holds a run with another configuration (see {self.claim_file}); its {self.content} "
            "would be mixed with different ones. Use another --output, or the configuration of that run. What differs "
            "(there -> here):\n  " + "\n  ".join(lines) + "".join(f"\n{driver}" for driver in drivers)
        )

    def _replace_claim(self, data: bytes) -> list[str]:
        """Replace the claim of a run that finished nothing; return the drivers that started meanwhile, if any."""
        info, earlier = self.storage.info(self.claim_file), self.storage.read(self.claim_file)
        if info is None or not self.storage.replace(self.claim_file, data, info.version):
            return ["Another driver claimed it at this moment. Run this command again."]
        drivers = find_drivers(self.storage)
        if drivers:
            self.storage.write(self.claim_file, earlier)
        return drivers

    def read_identity(self) -> dict[str, Any]:
        """Read the identity that the directory was claimed for.

        Raises:
            FileNotFoundError: it was not claimed.
            ValueError: the file is damaged.
        """
        content = read_json(self.storage, self.claim_file)
        identity = content.get("identity", content)
        if not isinstance(identity, dict):
            raise ValueError(f"{self.storage.describe(self.claim_file)} is damaged: it holds no settings.")  # noqa: TRY004
        return identity

    @contextmanager
    def at_work(self, identity: Mapping[str, Any]) -> Iterator[None]:
        """Record, until the context ends, that a driver works in the directory, which was claimed for `identity`.

        Raises:
            ValueError: another run has claimed the directory meanwhile.
        """
        with record_driver(self.storage):
            if self._differences(json.loads(json.dumps(identity))):
                raise ValueError(f"{self.storage.uri} was claimed by another run meanwhile: use another --output.")
            yield

    def _is_used(self) -> bool:
        """Return whether the job has finished anything here."""
        names = self.storage.list()
        if self.content_paths:
            return any(path in names or self.storage.list(path) for path in self.content_paths)
        ours = (self.claim_file, DRIVER_PREFIX)
        return bool(self.storage.folders()) or any(not name.startswith(ours) for name in names)

    def _differences(self, identity: Mapping[str, Any]) -> list[str]:
        lines = []
        for name, before, new in differences(self.read_identity(), identity):
            values = f"{name}: {_short(before)} -> {_short(new)}"
            replaced = _replaced(self.storage, self.shards) if name == "shards" and self.shards is not None else ""
            lines.append(self.explanations.get(name, values + replaced))
        return lines


def differences(earlier: Any, new: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Iterate over the values that differ: dotted name, earlier value, new value."""
    if isinstance(earlier, dict) and isinstance(new, dict):
        for key in sorted(earlier.keys() | new.keys()):
            yield from differences(earlier.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
    elif earlier != new:
        yield prefix, earlier, new


def _replaced(output: Storage, shards: ShardSet) -> str:
    """Return the shards whose content has changed since they were labelled, by the names of the label files."""
    now = {unit.name.rpartition("-")[0]: unit for unit in shards.units}
    names = set()
    for file in output.list("labels"):
        name = file.removesuffix(".parquet")
        position = name.rpartition("-")[0]
        if position not in now:
            names.add(f"{position.rpartition('-')[0]}.parquet (removed)")
        elif now[position].name != name:
            names.add(now[position].shard)
    if not names:
        return ""
    shown = ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"; of other content than what was labelled: {shown}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def units_to_do(shards: ShardSet, output: Storage, *, limit: int | None) -> tuple[list[Unit], list[Unit]]:
    """Return the units with a label file and those without, in order; the files are not read.

    Args:
        shards: all units.
        output: run directory.
        limit: consider the first units that hold this many images.
    """
    chosen = []
    images = 0
    for unit in shards.units:
        if limit is not None and images >= limit:
            break
        chosen.append(unit)
        images += unit.rows
    names = {f"labels/{name}" for name in output.list("labels")}
    return [u for u in chosen if u.label_path in names], [u for u in chosen if u.label_path not in names]
