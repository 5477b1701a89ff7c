"""COCO's forms that are PNGs with a JSON beside them: panoptic and semantic."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from wsss_ray.export.coco import CocoFormat
from wsss_ray.export.formats import category_ids
from wsss_ray.export.records import Record
from wsss_ray.export.segments import paint_segments
from wsss_ray.export.sheets import Parts, Sheet
from wsss_ray.images.label_png import encode_label

_SPREAD = 0x9E3779
"""Odd, so that its multiples by 1 to 2^24 - 1 differ modulo 2^24 and none is 0: neighbours get distant colours."""


@dataclass(frozen=True, kw_only=True)
class CocoPanoptic(CocoFormat):
    """annotations/panoptic_<split>.json and annotations/panoptic_<split>/<id>.png, as the panoptic API reads them.

    A pixel's id is R + 256 G + 65536 B; 0, void, is background and ignored pixels. Segments are the things of the label
    map, none overlapping (see `segments`); pixels of a class that no mask covers are one segment with `iscrowd` 1.
    """

    name: ClassVar[str] = "coco-panoptic"
    needs_instances: ClassVar[bool] = True
    has_parts: ClassVar[bool] = True

    def write(self, records: Iterable[Record], sheet: Sheet) -> None:
        """Write images and PNGs; one line per image goes to the part."""
        ids = category_ids(self.classes)
        for record in records:
            self.write_picture(record, sheet)
            painted = paint_segments(record, self.classes, self.paint)
            segments = [
                {
                    "id": _segment_id(segment.number),
                    "category_id": ids[segment.class_id],
                    "area": segment.area,
                    "bbox": list(segment.bbox),
                    "iscrowd": int(segment.instance is None),
                    **({} if segment.instance is None else {"score": segment.instance.score}),
                }
                for segment in painted.segments
            ]
            sheet.counts["segments"] += len(segments)
            sheet.counts["segments without a mask of their own"] += sum(
                segment.instance is None for segment in painted.segments
            )
            sheet.counts["masks hidden by others"] += painted.hidden
            sheet.write(f"annotations/panoptic_{self.split}/{record.image_id}.png", _color_png(painted.numbers))
            sheet.add_line({"image": record.image_id, "segments_info": segments})

    def annotations(self, numbers: Mapping[str, int], parts: Parts) -> Iterator[dict[str, Any]]:
        """One annotation per image."""
        for line in parts.lines():
            yield {
                "image_id": numbers[line["image"]],
                "file_name": f"{line['image']}.png",
                "segments_info": line["segments_info"],
            }


@dataclass(frozen=True, kw_only=True)
class CocoSemantic(CocoFormat):
    """annotations/semantic_<split>/<id>.png, whose values are category ids, and annotations/semantic_<split>.json.

    With COCO's own category ids, 0 is background and 255 ignored; else the values are the label's own. The JSON names
    both as `background_id` and `ignore_id`. Ids above 254 make 16-bit PNGs.
    """

    name: ClassVar[str] = "coco-semantic"

    def write(self, records: Iterable[Record], sheet: Sheet) -> None:
        """Write images and PNGs."""
        table = self._table()
        for record in records:
            self.write_picture(record, sheet)
            values = table[record.label]
            sheet.write(f"annotations/semantic_{self.split}/{record.image_id}.png", encode_label(values, palette=None))

    def annotations(self, numbers: Mapping[str, int], parts: Parts) -> Iterator[dict[str, Any]]:
        """One annotation per image."""
        for entry in parts.entries():
            yield {"image_id": numbers[entry.image_id], "file_name": f"{entry.image_id}.png"}

    def particulars(self) -> dict[str, Any]:
        """The values that are no category."""
        table = self._table()
        return {
            "background_id": int(table[self.classes.background_id]),
            "ignore_id": int(table[self.classes.ignore_id]),
        }

    def _table(self) -> np.ndarray:
        """Value of the PNG by class id; uint8 or uint16."""
        classes = self.classes
        values = category_ids(classes)
        if all(class_id == value for class_id, value in values.items()):
            special = {classes.background_id: classes.background_id, classes.ignore_id: classes.ignore_id}
        else:
            background = 0 if 0 not in values.values() else max(values.values()) + 1
            ignore = 255 if max(*values.values(), background) < 255 else 65535
            special = {classes.background_id: background, classes.ignore_id: ignore}
        values = {**values, **special}
        small = max(values.values()) <= 255
        table = np.zeros(max(values) + 1, np.uint8 if small else np.uint16)
        table[list(values)] = list(values.values())
        return table


def _segment_id(number: int) -> int:
    return number * _SPREAD % (1 << 24)


def _color_png(numbers: np.ndarray) -> bytes:
    """RGB PNG of a map of segment numbers."""
    ids = numbers.astype(np.int64) * _SPREAD % (1 << 24)
    stream = io.BytesIO()
    Image.fromarray(np.stack([ids, ids >> 8, ids >> 16], axis=-1).astype(np.uint8)).save(
        stream, "PNG", compress_level=3
    )
    return stream.getvalue()
