"""One class: its name, how it is prompted, its id and color; and the checks of classes."""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

LARGEST_ID = 65535
IGNORE_COLOR = (224, 224, 192)
"""RGB of ignored pixels, as in VOC."""
Positions = Mapping[tuple[str, str], str]
"""`file:line` by (field, text in it, or "" for the field itself)."""

_SINGULAR = {
    "id": "id",
    "name": "name",
    "aliases": "alias",
    "phrases": "phrase",
    "assist": "assist word",
    "category_id": "category_id",
}


@dataclass(frozen=True, kw_only=True)
class ClassEntry:
    """One class of a class set. Raises ValueError, with file and line where known, for invalid values."""

    name: str
    """Canonical name: what shards, tables and exports show."""
    id: int
    """Value of its pixels in a label map, 0 to 65535."""
    phrases: tuple[str, ...]
    """Phrases that the detector is prompted with: the name, unless the class set gives another, then synonyms."""
    assist: tuple[str, ...] = ()
    """Assist words (paper, 5.3): things whose boxes count as this class, where the class set turns them on."""
    aliases: tuple[str, ...] = ()
    """Other spellings by which a tag may name the class (`tvmonitor`)."""
    color: tuple[int, int, int]
    """RGB color in pictures, each channel 0 to 255."""
    category_id: int | None = None
    """Id in the source's own annotations (COCO: 1 to 90 with gaps)."""
    positions: Positions = field(default_factory=dict, compare=False, repr=False)
    """Where it was read, for errors."""

    def __post_init__(self) -> None:
        """Check the values."""
        if not 0 <= self.id <= LARGEST_ID:
            raise self._error("id", f"has id {self.id}: an id is from 0 to {LARGEST_ID}.")
        if len(self.color) != 3 or not all(0 <= value <= 255 for value in self.color):
            raise self._error("color", f"has color {list(self.color)}: it is [red, green, blue], each from 0 to 255.")
        if not self.phrases:
            raise self._error(
                "phrases", "has no phrase: write at least one, or leave `phrases` out to prompt its name."
            )
        for key, text in self.texts():
            if not fold(text):
                raise self._error(key, f"has an empty {_SINGULAR[key]}: write its text or remove it.", text)
            if key in {"phrases", "assist"} and not clean_phrase(text):
                raise self._error(
                    key,
                    f"has the {_SINGULAR[key]} '{text}', which is only '.' and '?', the detector's full stops: "
                    "write it in words.",
                    text,
                )

    def texts(self) -> Iterable[tuple[str, str]]:
        """Yield every text of the class as (field, text): name, aliases, phrases, assist words."""
        yield "name", self.name
        for key, texts in (("aliases", self.aliases), ("phrases", self.phrases), ("assist", self.assist)):
            for text in texts:
                yield key, text

    def position(self, key: str, text: str = "") -> str:
        """Return `file:line` of a field, or of one text in it; else the class's own; "class set" without a file."""
        own = self.positions.get(("name", ""), "class set")
        return self.positions.get((key, text), own)

    def _error(self, key: str, message: str, text: str = "") -> ValueError:
        return ValueError(f"{self.position(key, text)}: class '{self.name}' {message}")


def check_distinct(entries: Iterable[ClassEntry]) -> None:
    """Raise a ValueError where a name, alias, phrase, id or category id is used twice.

    Names and aliases share one space, that of tags; phrases and assist words another, that of prompts.
    """
    taken: dict[tuple[str, Hashable], str] = {}

    def claim(space: str, value: Hashable, entry: ClassEntry, key: str, text: str = "") -> None:
        what, position = _SINGULAR[key], entry.position(key, text)
        if (space, value) in taken:
            raise ValueError(
                f"{position}: {what} '{text or value}' of class '{entry.name}' is already {taken[space, value]}: "
                "change or remove one of the two."
            )
        taken[space, value] = f"the {what} of class '{entry.name}'" + (f" ({position})" if entry.positions else "")

    for entry in entries:
        claim("ids", entry.id, entry, "id")
        if entry.category_id is not None:
            claim("categories", entry.category_id, entry, "category_id")
        for key, text in entry.texts():
            if key in {"name", "aliases"}:
                claim("tags", fold(text), entry, key, text)
            else:
                claim("prompts", fold(clean_phrase(text)), entry, key, text)


def fold(text: str) -> str:
    """Return the form in which names are compared: case, spacing and Unicode composition do not matter."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def clean_phrase(text: str) -> str:
    """Return a phrase in the detector's form: lower case, with spaces for '.' and '?', which would end it."""
    return " ".join(text.replace(".", " ").replace("?", " ").lower().split())


def voc_color(index: int) -> tuple[int, int, int]:
    """Return an RGB of VOC's color map, which spreads the bits of `index` over the high bits of the channels."""
    red = green = blue = 0
    for shift in range(7, -1, -1):
        red |= (index & 1) << shift
        green |= (index >> 1 & 1) << shift
        blue |= (index >> 2 & 1) << shift
        index >>= 3
    return red, green, blue
