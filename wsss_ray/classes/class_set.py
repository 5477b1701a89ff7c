"""Class sets: names of the classes, how they are prompted, and their ids and colors in a label map.

The *label space* of a class set is its canonical names and ids with those of background and ignore. Image shards and
label files carry only that; phrases, assist words and colors belong to the labelling configuration. Built-in sets
are the YAML files of `sets/`; a user's own is a YAML file of the same form, at its shortest a list of names.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path

import numpy as np

from wsss_ray.classes.entry import (
    IGNORE_COLOR,
    LARGEST_ID,
    ClassEntry,
    Positions,
    check_distinct,
    clean_phrase,
    fold,
    voc_color,
)
from wsss_ray.classes.file import default_ignore, parse_class_set

BUILT_IN = ("voc", "voc-raw", "coco", "demo")


class UnknownTagError(ValueError):
    """A tag that is neither the name nor an alias of a class; the text names near matches or the valid names."""


@dataclass(frozen=True, kw_only=True)
class ClassSet:
    """The classes of a labelling job, checked: no name, alias, phrase or id belongs to two classes.

    Raises ValueError, naming the file and line where it was read from a file, for what cannot be a class set.
    """

    name: str
    """Name of the set, as tables show it."""
    classes: tuple[ClassEntry, ...]
    """The classes, without the background, in the order of prompts and tables."""
    background_id: int = 0
    """Value of pixels that belong to no class."""
    ignore_id: int
    """Value of pixels that are not counted."""
    assist_words: bool
    """Whether assist words are prompted with their class."""
    positions: Positions = field(default_factory=dict, compare=False, repr=False)
    """`file:line` of the fields, as in ClassEntry."""

    @classmethod
    def load(cls, name_or_path: str, *, assist_words: bool | None = None) -> ClassSet:
        """Return a built-in set (voc, voc-raw, coco, demo) or a YAML file's; `assist_words` overrides the set's own."""
        if name_or_path in BUILT_IN:
            source = f"{name_or_path}.yaml"
            text = (resources.files("wsss_ray.classes") / "sets" / source).read_text(encoding="utf-8-sig")
        else:
            source = name_or_path
            text = _read(name_or_path)
        class_set = cls(**parse_class_set(text, source=source))
        return class_set if assist_words is None else dataclasses.replace(class_set, assist_words=assist_words)

    @classmethod
    def from_names(cls, names: Iterable[str], *, name: str = "classes") -> ClassSet:
        """Return a set of plain names with ids from 1, for a notebook."""
        entries = tuple(
            ClassEntry(name=class_name, id=index, phrases=(class_name,), color=voc_color(index))
            for index, class_name in enumerate(names, start=1)
        )
        return cls(name=name, classes=entries, ignore_id=default_ignore(len(entries)), assist_words=False)

    def __post_init__(self) -> None:
        """Check names, phrases and ids, whether they come from a file or from a caller."""
        if not self.classes:
            raise ValueError(f"{self._position('classes')}: there are no classes: list at least one.")
        for key in ("background_id", "ignore_id"):
            if not 0 <= getattr(self, key) <= LARGEST_ID:
                raise ValueError(f"{self._position(key)}: `{key}` must be from 0 to {LARGEST_ID}.")
        if self.background_id == self.ignore_id:
            raise ValueError(
                f"{self._position('ignore_id')}: `ignore_id` and `background_id` are both {self.ignore_id}: "
                "they must differ."
            )
        for entry in self.classes:
            for key in ("background_id", "ignore_id"):
                if entry.id == getattr(self, key):
                    raise ValueError(
                        f"{entry.position('id')}: class '{entry.name}' has id {entry.id}, which is the set's `{key}`: "
                        "give it another `id`."
                    )
        check_distinct(self.classes)

    def _position(self, key: str) -> str:
        return self.positions.get((key, ""), f"class set '{self.name}'")

    @property
    def num_classes(self) -> int:
        """Number of classes, the background included."""
        return len(self.classes) + 1

    @property
    def names(self) -> tuple[str, ...]:
        """Canonical names in the set's order, without the background."""
        return tuple(entry.name for entry in self.classes)

    @cached_property
    def by_name(self) -> Mapping[str, ClassEntry]:
        """Classes by canonical name."""
        return {entry.name: entry for entry in self.classes}

    @cached_property
    def by_id(self) -> Mapping[int, ClassEntry]:
        """Classes by id."""
        return {entry.id: entry for entry in self.classes}

    @cached_property
    def _names_by_tag(self) -> Mapping[str, str]:
        return {fold(tag): entry.name for entry in self.classes for tag in (entry.name, *entry.aliases)}

    def canonical(self, tag: str) -> str:
        """Return the canonical name of the class that `tag` names, in any case and spacing.

        Raises UnknownTagError, which names near matches, where `tag` is neither a name nor an alias.
        """
        name = self._names_by_tag.get(fold(tag))
        if name is None:
            raise UnknownTagError(self._unknown(tag))
        return name

    def _unknown(self, tag: str) -> str:
        known = dict(self._names_by_tag)
        for entry in self.classes:  # a synonym is no tag, but it shows which class was meant
            for phrase in entry.phrases:
                known.setdefault(fold(phrase), entry.name)
        near = dict.fromkeys(known[text] for text in difflib.get_close_matches(fold(tag), known, n=5))
        message = f"tag '{tag}' is no class or alias of class set '{self.name}'."
        if near:
            return f"{message} Near: {', '.join(near)}."
        shown = self.names[:25]
        more = f" and {len(self.names) - len(shown)} more" if len(self.names) > len(shown) else ""
        return f"{message} Its classes: {', '.join(shown)}{more}."

    def phrases_of(self, name: str) -> tuple[str, ...]:
        """Return the phrases to prompt for the class of this canonical name, its assist words last where they are on.

        They are in the detector's form: lower case, single spaces, no '.' or '?'.
        """
        entry = self.by_name[name]
        texts = (*entry.phrases, *entry.assist) if self.assist_words else entry.phrases
        return tuple(clean_phrase(text) for text in texts)

    @cached_property
    def label_space_digest(self) -> str:
        """SHA-256 (hex) of canonical names, ids, background and ignore: equal where label maps mean the same."""
        pairs = sorted((entry.id, entry.name) for entry in self.classes)
        content = json.dumps([self.background_id, self.ignore_id, pairs])
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def label_dtype(self) -> type[np.uint8] | type[np.uint16]:
        """Type of a label map: 8-bit while the largest id is at most 254 (and ignore at most 255), else 16-bit."""
        largest = max(self.background_id, *(entry.id for entry in self.classes))
        return np.uint8 if largest <= 254 and self.ignore_id <= 255 else np.uint16

    def palette(self) -> bytes:
        """Return 768 bytes of RGB for an 8-bit palette PNG: the classes' colors, black background, VOC's map elsewhere.

        Raises ValueError for a set of 16-bit labels, which are written in grey.
        """
        if self.label_dtype is not np.uint8:
            raise ValueError(f"class set '{self.name}' has 16-bit labels: they are written as grey, no palette.")
        colors = [voc_color(index) for index in range(256)]
        colors[self.background_id] = (0, 0, 0)
        colors[self.ignore_id] = IGNORE_COLOR
        for entry in self.classes:
            colors[entry.id] = entry.color
        return bytes(value for color in colors for value in color)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ValueError(
            f"there is no class set '{path}': it is neither a built-in one ({', '.join(BUILT_IN)}) nor a file."
        ) from None
    except OSError as error:
        raise ValueError(f"cannot read the class set {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}).") from error
