"""COCO's panoptic PNGs and annotations."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from wsss_ray.export.categories import category_ids
from wsss_ray.export.coco_file import CocoFormat
from wsss_ray.export.exported import ExportedUnits
from wsss_ray.export.format import EXPORT_FORMATS
from wsss_ray.export.records import Record, shortest
from wsss_ray.export.segments import Segments, divide_label, look_up
from wsss_ray.export.unit_output import UnitOutput

_STRIDE = 0x9E3779
"""Odd, so that its multiples by 1 to 2^24 - 1 differ modulo 2^24 and none is 0. Neighbors get distant colors."""


@EXPORT_FORMATS.register("coco-panoptic")
class CocoPanoptic(CocoFormat):
    """annotations/panoptic_<split>.json and annotations/panoptic_<split>/<id>.png, as the panoptic API reads them.

    A pixel's id is R + 256 G + 65536 B. Id 0, void, is background and ignored pixels. Segments do not overlap (see
    `segments`). Pixels of a class that no mask covers form one segment with `iscrowd` 1.
    """

    kind: ClassVar[str] = "panoptic"
    needs_instances: ClassVar[bool] = True
    has_parts: ClassVar[bool] = True

    def write(self, records: Iterable[Record], output: UnitOutput) -> None:
        """Write images and PNGs, and a line per image to the part."""
        ids = category_ids(self.classes)
        for record in records:
            self.write_image(record, output)
            divided = divide_label(record, self.classes, self.paint)
            segments = [
                {
                    "id": _segment_id(segment.number),
                    "category_id": ids[segment.class_id],
                    "area": segment.area,
                    "bbox": list(segment.bbox),
                    "iscrowd": int(segment.instance is None),
                    **({} if segment.instance is None else {"score": shortest(segment.instance.score)}),
                }
                for segment in divided.segments
            ]
            output.counts["segments"] += len(segments)
            output.counts["segments without a mask of their own"] += sum(
                segment.instance is None for segment in divided.segments
            )
            output.counts["masks hidden by others"] += divided.hidden
            output.write(f"annotations/panoptic_{self.split}/{record.image_id}.png", _color_png(divided))
            output.add_line({"image": record.image_id, "segments_info": segments})

    def annotations(self, numbers: Mapping[str, int], exported: ExportedUnits) -> Iterator[dict[str, Any]]:
        """Iterate over one annotation per image."""
        for line in exported.lines():
            yield {
                "image_id": numbers[line["image"]],
                "file_name": f"{line['image']}.png",
                "segments_info": line["segments_info"],
            }


def _segment_id(number: int) -> int:
    return number * _STRIDE % (1 << 24)


def _color_png(divided: Segments) -> bytes:
    """Return the RGB PNG of a map of segment numbers."""
    ids = [_segment_id(number) for number in range(len(divided.segments) + 1)]
    colors = np.array([(value & 255, value >> 8 & 255, value >> 16) for value in ids], np.uint8)
    stream = io.BytesIO()
    Image.fromarray(look_up(colors, divided.numbers)).save(stream, "PNG", compress_level=3)
    return stream.getvalue()
