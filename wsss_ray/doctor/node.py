"""The checks that run on a node, in a Ray task. Each returns results and raises nothing."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from wsss_ray.config.shared import StorageConfig
from wsss_ray.doctor.results import CheckResult
from wsss_ray.labels.weights import identify
from wsss_ray.models.protocols import Weights
from wsss_ray.storage.errors import StorageError
from wsss_ray.storage.redaction import masked
from wsss_ray.storage.storage import Storage

PACKAGES = ("wsss_ray", "ray", "torch", "transformers", "pyarrow", "numpy")
OPEN_FILES = 65_536
"""Open files that Ray recommends."""
FEWEST_OPEN_FILES = 8_192
"""Open files below which a busy node may fail: its processes hold thousands of connections."""
_MEMORY = Path("/dev/shm")  # noqa: S108 - where Ray keeps its objects on Linux


def installed() -> dict[str, str]:
    """Return the versions of Python and of the packages that all nodes must share."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


@dataclass(frozen=True, kw_only=True)
class NodeChecks:
    """The checks of one node. Pickled to its task."""

    versions: dict[str, str]
    """Those of the driver."""
    weights: dict[str, Weights]
    """Weights by the model's name."""
    output: str | None
    """Run directory."""
    token: str
    """A file in the output that the driver wrote, which each node must see."""
    input: str | None
    """Image shards."""
    storage: StorageConfig

    def run(self, object_store: float) -> tuple[float, dict[str, list[str]], list[CheckResult]]:
        """Check this node, but for its GPUs; `object_store` is the size of its object store in bytes.

        Returns:
            The node's time in seconds since 1970, the digests of the weights by model, and the results.
        """
        digests: dict[str, list[str]] = {}
        parts: list[Callable[[], Iterator[CheckResult]]] = [
            self._versions,
            lambda: check_limits(object_store),
            self._store,
            lambda: self._weights(digests),
        ]
        results = []
        for part in parts:
            results += list(part())
        return time.time(), digests, results

    def _versions(self) -> Iterator[CheckResult]:
        here = installed()
        other = [
            f"{name} {here[name]} (driver: {there})" for name, there in self.versions.items() if here[name] != there
        ]
        if other:
            yield CheckResult(
                check="versions",
                found=", ".join(other),
                state="error",
                advice="install the same versions on all nodes: the image, or `pip install -c constraints.txt`.",
            )
        else:
            yield CheckResult(check="versions", found=f"ray {here['ray']}, torch {here['torch']}, as the driver")

    def _store(self) -> Iterator[CheckResult]:
        if self.output is not None:
            yield from check_output(Storage(self.output, self.storage), self.token)
        if self.input is not None:
            yield from check_input(Storage(self.input, self.storage))

    def _weights(self, digests: dict[str, list[str]]) -> Iterator[CheckResult]:
        for name, weights in self.weights.items():
            try:
                digests[name] = identify(weights, self.storage)
            except (ValueError, OSError) as error:
                advice = f"copy the {name}'s weights to this path on every node, or give a URI that all can read."
                yield CheckResult(check=f"{name} weights", found=_short(error), state="error", advice=advice)
            else:
                yield CheckResult(check=f"{name} weights", found=_shown_digests(weights, digests[name]))


def check_limits(object_store: float) -> Iterator[CheckResult]:
    """Check the limit of open files, and the shared memory of this node's object store (in bytes)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FEWEST_OPEN_FILES:
        advice = (
            f"raise it before Ray starts: `ulimit -n {OPEN_FILES}`, or `--ulimit nofile={OPEN_FILES}` for a container."
        )
        yield CheckResult(check="open files", found=f"at most {soft:,}", state="warning", advice=advice)
    else:
        yield CheckResult(
            check="open files", found="unlimited" if soft == resource.RLIM_INFINITY else f"at most {soft:,}"
        )
    if not _MEMORY.is_dir():
        return
    size = shutil.disk_usage(_MEMORY).total
    found = f"{size / 1e9:.1f} GB in {_MEMORY}, the object store takes {object_store / 1e9:.1f} GB"
    if size < object_store:
        advice = "give the container more shared memory (`--shm-size`, or an emptyDir of medium Memory)."
        yield CheckResult(check="shared memory", found=found, state="warning", advice=advice)
    else:
        yield CheckResult(check="shared memory", found=found)


def check_output(storage: Storage, token: str) -> Iterator[CheckResult]:
    """Check that this node sees the driver's file in the output, writes there, and never overwrites by accident."""
    name, content = f"doctor-{uuid.uuid4().hex}", os.urandom(1024)
    started = time.perf_counter()
    try:
        if not storage.exists(token):
            advice = (
                "the driver's files do not appear on this node: local paths must be on storage that all nodes share."
                if storage.is_local
                else "the store does not show what the driver has just written: use one that is consistent."
            )
            yield CheckResult(check="output", found=f"{storage.uri} is not the driver's", state="error", advice=advice)
            return
        try:
            first, second = storage.create(name, content), storage.create(name, b"")
            whole = storage.read(name) == content
        finally:
            storage.remove(name)
    except (StorageError, OSError, ValueError) as error:
        advice = "check the path, the node's role or keys, and the endpoint."
        yield CheckResult(check="output", found=_short(error), state="error", advice=advice)
        return
    took = time.perf_counter() - started
    if not (first and whole):
        advice = "what is written to the store does not come back: use another one."
        yield CheckResult(check="output", found=f"{storage.uri} loses files", state="error", advice=advice)
    elif second:
        advice = "the store overwrites files in spite of If-None-Match: use one with conditional writes."
        yield CheckResult(check="output", found=f"{storage.uri} overwrites files", state="error", advice=advice)
    else:
        yield CheckResult(check="output", found=f"{storage.uri}: written, read and removed, {_duration(took)}")


def check_input(storage: Storage) -> Iterator[CheckResult]:
    """Check that this node can read the image shards."""
    started = time.perf_counter()
    try:
        shards = sorted(name for name in storage.list() if name.endswith(".parquet"))
        if not shards:
            raise FileNotFoundError(f"{storage.uri} holds no image shards.")
        storage.read_end(shards[0], 8)
    except (StorageError, OSError, ValueError) as error:
        advice = "give the folder that `wsss-ray shard` wrote, on storage that every node can read."
        yield CheckResult(check="input", found=_short(error), state="error", advice=advice)
    else:
        yield CheckResult(check="input", found=f"{storage.uri}: read, {_duration(time.perf_counter() - started)}")


def _duration(seconds: float) -> str:
    """Return whether an access was quick: equal texts let equal nodes share one entry of the table."""
    return next((f"in under {limit} s" for limit in (1, 3, 10) if seconds < limit), "in over 10 s")


def _shown_digests(weights: Weights, digests: list[str]) -> str:
    where = weights.hub or weights.uri or ", ".join(str(path) for path in weights.files)
    return masked(f"{where}: {', '.join(digest[:12] for digest in digests)}") if weights.hub is None else where


def _short(error: Exception) -> str:
    return masked(" ".join(str(error).split()))[:300]
