"""Read class set files: YAML to checked values, with the line of each for errors.

A file is a list of names, or a mapping with `classes` (a list of names, or a mapping of name to any of phrases,
assist, aliases, id, color, category_id) and optionally name, background_id, ignore_id and assist_words.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from wsss_ray.classes.entry import ClassEntry, Positions, voc_color
from wsss_ray.config.strict_yaml import Located, compose

_SET_KEYS = ("name", "background_id", "ignore_id", "assist_words", "classes")
_CLASS_KEYS = ("phrases", "assist", "aliases", "id", "color", "category_id")


class ClassSetFields(TypedDict):
    """Fields of a `ClassSet`, from a file."""

    name: str
    classes: tuple[ClassEntry, ...]
    background_id: int
    ignore_id: int
    assist_words: bool
    positions: Positions


def parse_class_set(text: str, *, source: str) -> ClassSetFields:
    """Return the class set in YAML `text`; `source` is the file's name in errors, and its stem the default `name`.

    Raises ValueError with file and line for anything but a class set. Ids default to 1, 2, ... in the file's order,
    phrases to the name, colors to the VOC color map, ignore to 255 (65535 with an id above 254), assist words to on.
    """
    document = compose(text, source=source)
    if document is None:
        raise ValueError(f"{source}:1: the file is empty.")
    if document.is_list:
        top = {"classes": document}
    else:
        top = {key.text("a key"): value for key, value in document.entries("a class set", keys=_SET_KEYS)}
    if "classes" not in top:
        raise document.error("`classes` is missing: list the names of the classes under it.")
    background_id = top["background_id"].integer("`background_id`") if "background_id" in top else 0
    classes = _parse_classes(top["classes"], background_id)
    largest = max(background_id, *(entry.id for entry in classes))
    return {
        "name": top["name"].text("`name`") if "name" in top else Path(source).stem,
        "classes": classes,
        "background_id": background_id,
        "ignore_id": top["ignore_id"].integer("`ignore_id`") if "ignore_id" in top else default_ignore(largest),
        "assist_words": top["assist_words"].boolean("`assist_words`") if "assist_words" in top else True,
        "positions": {(key, ""): value.position for key, value in top.items()},
    }


def default_ignore(largest_id: int) -> int:
    """Return the ignore id: 255 (8-bit labels) while the largest id is at most 254, else 65535 (16-bit labels)."""
    return 255 if largest_id <= 254 else 65535


def _parse_classes(classes: Located, background_id: int) -> tuple[ClassEntry, ...]:
    if classes.is_list:
        pairs: list[tuple[Located, Located | None]] = [(name, None) for name in classes.items("`classes`")]
    else:
        pairs = [] if classes.is_null else list(classes.entries("`classes`"))
    if not pairs:
        raise classes.error("there are no classes: list at least one name under `classes`.")
    return tuple(
        _parse_class(name, value, number, background_id) for number, (name, value) in enumerate(pairs, start=1)
    )


def _parse_class(name: Located, value: Located | None, number: int, background_id: int) -> ClassEntry:
    text = name.text("a class name")
    fields: dict[str, Located] = {}
    if value is not None and not value.is_null:
        entries = value.entries(f"class '{text}'", keys=_CLASS_KEYS)
        fields = {key.text("a key"): located for key, located in entries}
    positions = {("name", ""): name.position} | {(key, ""): located.position for key, located in fields.items()}

    def texts(key: str) -> tuple[str, ...]:
        items = fields[key].items(f"`{key}` of class '{text}'") if key in fields else []
        for item in items:
            first = positions.setdefault((key, item.text(f"an item of `{key}`")), item.position)
            if first != item.position:
                raise item.error(f"`{key}` of class '{text}' has this twice, first at {first}: remove one.")
        return tuple(item.text(f"an item of `{key}`") for item in items)

    class_id = fields["id"].integer(f"`id` of class '{text}'") if "id" in fields else number
    if "color" in fields:
        items = fields["color"].items(f"`color` of class '{text}'")
        color = tuple(item.integer("a channel of `color`") for item in items)
    else:  # black is the background's: a class with id 0 takes what the background's id would have
        color = voc_color(background_id if class_id == 0 else class_id)
    return ClassEntry(
        name=text,
        id=class_id,
        phrases=texts("phrases") if "phrases" in fields else (text,),
        assist=texts("assist"),
        aliases=texts("aliases"),
        color=color,  # type: ignore[arg-type]  # three channels, as the entry checks
        category_id=fields["category_id"].integer("`category_id`") if "category_id" in fields else None,
        positions=positions,
    )
