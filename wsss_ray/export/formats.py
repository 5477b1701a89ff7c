"""What every format is: it writes the records of one unit, and joins the parts of all units at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from wsss_ray.classes import ClassEntry, ClassSet
from wsss_ray.export.records import Record
from wsss_ray.export.sheets import Parts, Sheet
from wsss_ray.storage.storage import Storage


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What there is when all units are written."""

    parts: Parts
    output: Storage
    counts: Mapping[str, int]
    """Sums over all units."""


@dataclass(frozen=True, kw_only=True)
class Format(ABC):
    """A format of an export. Can be pickled."""

    classes: ClassSet
    split: str
    copy_images: bool
    paint: str
    """The run's rule of which mask wins where several cover a pixel; see `FusionConfig.paint`."""
    polygon_tolerance: float

    name: ClassVar[str]
    """As `ExportConfig.format` has it."""
    needs_instances: ClassVar[bool] = False
    """Predictions cannot take this format."""
    picture_folder: ClassVar[str | None] = None
    """Where images are written, `{split}` standing for the split; None where the format has no place for files."""
    holds_pictures: ClassVar[bool] = True
    """Whether images belong to the format at all."""
    has_parts: ClassVar[bool] = False
    """Whether units leave a part to be joined."""

    def refusal(self) -> str | None:
        """Why these classes, options or this environment can never give this format; None where they can."""
        return None

    @abstractmethod
    def write(self, records: Iterable[Record], sheet: Sheet) -> None:
        """Write the records of one unit."""

    @abstractmethod
    def finish(self, ending: Ending) -> list[str]:
        """Write what is made once for all units; returns lines for screen and summary: what a user should know."""

    @property
    def reads_pictures(self) -> bool:
        """Whether the images have to be read."""
        return self.holds_pictures and self.copy_images

    @property
    def palette(self) -> bytes | None:
        """Palette of label PNGs; None for 16-bit ones."""
        return self.classes.palette() if self.classes.label_dtype().itemsize == 1 else None

    def write_picture(self, record: Record, sheet: Sheet) -> None:
        """Write the record's image to the format's folder of images, where images are copied."""
        if record.picture is not None and self.picture_folder is not None:
            sheet.write(f"{self.picture_folder.format(split=self.split)}/{record.file_name}", record.picture)


def category_ids(classes: ClassSet) -> dict[int, int]:
    """Category id by class id: the classes' own where all of them have one (COCO's 1 to 90), else the class ids."""
    own = {entry.id: entry.category_id for entry in classes.classes}
    if any(category_id is None for category_id in own.values()):
        return {class_id: class_id for class_id in own}
    return {class_id: category_id for class_id, category_id in own.items() if category_id is not None}


def categories(classes: ClassSet) -> list[dict[str, object]]:
    """COCO's list of categories, with the classes' colours."""
    ids = category_ids(classes)
    return [_category(entry, ids[entry.id]) for entry in classes.classes]


def _category(entry: ClassEntry, category_id: int) -> dict[str, object]:
    return {
        "id": category_id,
        "name": entry.name,
        "supercategory": entry.name,
        "isthing": 1,
        "color": list(entry.color),
    }
