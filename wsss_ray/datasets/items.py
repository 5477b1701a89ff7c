"""Listing of a source: its images, their tags and the files of their truth. No image is read."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from wsss_ray.classes import ClassSet, UnknownTagError
from wsss_ray.storage.storage import Storage

_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class TruthFile:
    """A label PNG below the truth root."""

    path: str
    """Path relative to the truth root."""
    size: int | None
    """Bytes, or None where the source names a file that does not exist."""


@dataclass(frozen=True, kw_only=True)
class TruthInstances:
    """COCO annotations of one image, to be painted into a label map."""

    annotations: bytes
    """JSON list of [class id, is crowd (0 or 1), segmentation], in the file's order."""
    height: int | None
    """Height in pixels that the annotations were drawn for, where the file states it."""
    width: int | None
    """Width in pixels, likewise."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One listed image."""

    image_id: str
    path: str
    """Path relative to the image root, which becomes the row's `source`."""
    size: int | None
    """Bytes, or None where the list names a file that does not exist."""
    tags: tuple[str, ...] | None
    """Canonical names in the class set's order; None: they are read from the truth mask."""
    truth: TruthFile | TruthInstances | None = None
    similar: str | None = None
    """Path of an existing file that was probably meant, where this one is absent."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Everything that a source lists."""

    items: tuple[Item, ...]
    """Sorted by image id, each id once."""
    images: Storage
    """Root of the items' paths."""
    truths: Storage | None = None
    """Root of the truth files' paths."""
    exif: Literal["apply", "ignore"]
    """The source's own rule for EXIF orientation."""
    dropped_tags: Mapping[str, int] = field(default_factory=dict)
    """Unknown tags that were dropped, each with its number of occurrences."""
    unlisted: tuple[str, ...] = ()
    """Paths of images on disk that the tag file does not name."""
    notes: tuple[str, ...] = ()
    """Choices of the source that a user should know, one line each."""


def sort_items(items: Iterable[Item]) -> tuple[Item, ...]:
    """Return the items in the order of their ids, which must differ."""
    ordered = sorted(items, key=lambda item: item.image_id)
    for first, second in itertools.pairwise(ordered):
        if first.image_id == second.image_id:
            raise ValueError(
                f"{first.path} and {second.path} would both get the id {first.image_id!r}: rename or leave out one."
            )
    return tuple(ordered)


class TagReader:
    """Turns the tags of a source into canonical names, and counts the unknown ones."""

    def __init__(self, class_set: ClassSet, unknown: Literal["error", "drop"]) -> None:
        """Start with no unknown tags; `unknown` decides what `finish` does with them."""
        self._class_set = class_set
        self._unknown = unknown
        self._ranks = {name: rank for rank, name in enumerate(class_set.names)}
        self._known: dict[str, str | None] = {}
        self._errors: dict[str, str] = {}
        self.dropped: Counter[str] = Counter()
        """Unknown tags, each with its number of occurrences."""

    def read(self, tags: Iterable[str], where: str) -> tuple[str, ...]:
        """Return the canonical names, each once, in the class set's order.

        Args:
            tags: tags as the source spells them.
            where: file and line, for the message about an unknown one.
        """
        names = set()
        for tag in tags:
            if tag not in self._known:
                try:
                    self._known[tag] = self._class_set.canonical(tag)
                except UnknownTagError as error:
                    self._known[tag] = None
                    self._errors[tag] = f"{where}: {error}{self._comma_hint(tag)}"
            name = self._known[tag]
            if name is None:
                self.dropped[tag] += 1
            else:
                names.add(name)
        return tuple(sorted(names, key=self._ranks.__getitem__))

    def _comma_hint(self, tag: str) -> str:
        """Return a hint for several tags that are separated by commas."""
        parts = [part.strip() for part in tag.split(",")]
        try:
            names = [self._class_set.canonical(part) for part in parts]
        except UnknownTagError:
            return ""
        return f" Separate several tags by `;` or `|`: {';'.join(names)}."

    def finish(self) -> Mapping[str, int]:
        """Return the dropped tags, each with its number of occurrences.

        Raises:
            ValueError: unknown tags are errors, and there were some; it names the first ten with file and line.
        """
        if self._errors and self._unknown == "error":
            lines = [f"  {text}{_repeated(self.dropped[tag] - 1)}" for tag, text in list(self._errors.items())[:_SHOWN]]
            more = len(self._errors) - len(lines)
            raise ValueError(
                f"{len(self._errors)} unknown tag{'s' if len(self._errors) > 1 else ''}:\n"
                + "\n".join(lines)
                + (f"\n  and {more} more" if more else "")
                + "\nCorrect the tags, give other --classes (a YAML file may add aliases), or give --unknown-tags drop."
            )
        return dict(sorted(self.dropped.items()))


def first_few(names: Iterable[str], *, shown: int = 3) -> str:
    """Return the first names of a list, and how many more there are, for a message."""
    names = list(names)
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


def _repeated(times: int) -> str:
    return "" if times == 0 else " (once more)" if times == 1 else f" ({times} more times)"
