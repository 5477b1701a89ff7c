"""The gallery's data as scripts, which open from disk where JSON does not: an index of all images, details by unit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wsss_ray.classes import ClassSet
from wsss_ray.report.unit import Card
from wsss_ray.shards.schemas import STATUSES

FIELDS = (
    "id",
    "unit",
    "width",
    "height",
    "status",
    "tags",
    "missed",
    "shares",
    "boxes",
    "files",
    "iou",
    "classIou",
    "rank",
    "reasons",
)
"""Fields of an image's row of the index, in order. `shares` (in thousandths) and `classIou` are flat: class, value,
class, value. `files`: 1 a photo, 2 a label, 4 a truth, summed."""

_PICTURES = {1: ("photos/{}.jpg", "thumbnails/{}.jpg"), 2: ("labels/{}.png",), 4: ("truths/{}.png",)}
"""Paths of an image's pictures by the flag in `files`."""


class Index:
    """The rows of all images, in the order of the pages."""

    def __init__(self, classes: ClassSet, kinds: Sequence[str]) -> None:
        """Take the classes and the kinds of reasons that the audit knows."""
        self._classes = classes
        self._kinds = list(kinds)
        self._units: dict[str, int] = {}
        self._rows: list[list[Any]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, card: Card) -> None:
        """Add an image."""
        self._rows.append(
            [
                card.image_id,
                self._units.setdefault(card.unit, len(self._units)),
                card.width,
                card.height,
                STATUSES.index(card.status),
                card.tags,
                card.missed,
                [value for index, share in card.shares for value in (index, round(1000 * share, 1))],
                None if card.boxes is None else len(card.boxes),
                card.has_photo + 2 * card.has_label + 4 * card.has_truth,
                card.iou,
                [value for pair in card.class_iou for value in pair],
                card.rank,
                sorted({self._kinds.index(reason["kind"]) for reason in card.reasons}),
            ]
        )

    def files(self) -> Iterator[str]:
        """Return the paths of the pictures and details that the gallery refers to."""
        for name in self._units:
            yield details_path(name)
        column = FIELDS.index("files")
        for row in self._rows:
            for flag, paths in _PICTURES.items():
                if row[column] & flag:
                    yield from (path.format(row[0]) for path in paths)

    def encode(self, page: Mapping[str, Any]) -> bytes:
        """Return a script that passes the index to the gallery; `page` holds the settings of the pages."""
        head = {
            **page,
            "classes": list(self._classes.names),
            "statuses": list(STATUSES),
            "kinds": self._kinds,
            "units": list(self._units),
            "fields": list(FIELDS),
        }
        rows = ",\n".join(to_script(row) for row in self._rows)
        return f"var galleryUnits = {{}};\nvar gallery = {to_script(head)};\ngallery.images = [\n{rows}\n];\n".encode(
            "ascii"
        )


def details_path(unit: str) -> str:
    """Return the path of a unit's details in the gallery."""
    return f"data/units/{unit}.js"


def encode_details(unit: str, cards: Sequence[Card]) -> bytes:
    """Return a script that passes the details of a unit's images to the gallery: unlike JSON, it opens from disk."""
    images = {
        card.image_id: {
            "boxes": None
            if card.boxes is None
            else [[box.class_index, box.phrase, box.score, box.mask_score, *box.corners] for box in card.boxes],
            "problems": card.problems,
            "reasons": [[reason["kind"], reason["text"]] for reason in card.reasons],
            "disagreements": [
                [region["class"], region["kind"], region["other"], *region["box"]] for region in card.disagreements
            ],
        }
        for card in cards
    }
    return f"galleryUnits[{to_script(unit)}] = {to_script(images)};\n".encode("ascii")


def to_script(value: Any) -> str:
    """Return JSON that is safe inside a script: ASCII, without a character that could end the script."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
