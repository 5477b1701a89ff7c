"""Registries: name -> class, for the parts that a user's package can add.

A class is registered by a decorator, or by an entry point of the registry's group in the `pyproject.toml` of an
installed package:

    [project.entry-points."wsss_ray.detectors"]
    owlv2 = "my_package.owlv2:Owlv2Detector"
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from wsss_ray.errors import suggest

T = TypeVar("T")
EntryT = TypeVar("EntryT")


class Registry(Generic[T]):
    """Entries of one kind by name.

    >>> built_in = {"voc": "wsss_ray.datasets.voc"}
    >>> SOURCES: Registry[Source] = Registry(kind="source", group="wsss_ray.sources", built_in=built_in)
    >>> SOURCES.get("voc")

    A built-in entry is loaded when it is first requested: its module is imported and registers it.
    """

    def __init__(self, *, kind: str, group: str, built_in: Mapping[str, str] | None = None) -> None:
        """Create a registry.

        Args:
            kind: what the entries are, for error messages ("detector").
            group: entry-point group in which installed packages add entries.
            built_in: module by name of the package's own entries; importing the module registers the entry.
        """
        self.kind = kind
        self.group = group
        self._built_in = dict(built_in or {})
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[EntryT], EntryT]:
        """Return a decorator that registers a class (or function) under `name`.

        Raises:
            ValueError: another entry has the name.
        """

        def decorate(entry: EntryT) -> EntryT:
            there: Any = self._entries.setdefault(name, entry)  # type: ignore[arg-type]  # as the caller annotated it
            if there is not entry and _origin(there) != _origin(entry):
                raise ValueError(f"there are two {self.kind}s '{name}': {_origin(there)} and {_origin(entry)}.")
            return entry

        return decorate

    def get(self, name: str) -> T:
        """Return the entry of this name, imported if necessary. `module:Class` names an entry that is not registered.

        Raises:
            ValueError: no entry has the name; near matches and the valid names are listed.
        """
        if ":" in name:
            return self._import(name)
        if name not in self._entries and name in self._built_in:
            importlib.import_module(self._built_in[name])
        if name not in self._entries:
            for point in entry_points(group=self.group, name=name):
                self.register(name)(point.load())
        self.check(name)
        return self._entries[name]

    def check(self, name: str) -> None:
        """Raise the ValueError of `get` where no entry has this name, without importing any."""
        if ":" in name or name in self._entries or name in self._built_in or name in self.names():
            return
        names = self.names()
        raise ValueError(f"unknown {self.kind} `{name}`.{suggest(name, names)} Valid: {', '.join(names)}.")

    def _import(self, name: str) -> T:
        module, _, attribute = name.partition(":")
        try:
            entry: T = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"{self.kind} '{name}' cannot be imported: {error}.") from error
        return entry

    def names(self) -> tuple[str, ...]:
        """Return the names of all entries, built-in ones first, without importing any."""
        added = {point.name for point in entry_points(group=self.group)} | set(self._entries)
        return (*self._built_in, *sorted(added - set(self._built_in)))


def _origin(entry: Any) -> str:
    """Return where an entry is defined: a module that is loaded twice defines equal entries."""
    return f"{getattr(entry, '__module__', '?')}.{getattr(entry, '__qualname__', repr(entry))}"
