"""Semantic PNGs with COCO's category ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from wsss_ray.export.categories import category_ids
from wsss_ray.export.coco_file import CocoFormat
from wsss_ray.export.exported import ExportedUnits
from wsss_ray.export.format import EXPORT_FORMATS
from wsss_ray.export.records import Record
from wsss_ray.export.unit_output import UnitOutput
from wsss_ray.images.label_png import encode_label


@EXPORT_FORMATS.register("coco-semantic")
class CocoSemantic(CocoFormat):
    """annotations/semantic_<split>/<id>.png, whose values are category ids, and annotations/semantic_<split>.json.

    With COCO's own category ids, 0 is background and 255 ignore; otherwise the values are those of the label map. The
    JSON file gives both as `background_id` and `ignore_id`. Ids above 254 give 16-bit PNGs.
    """

    kind: ClassVar[str] = "semantic"

    def write(self, records: Iterable[Record], output: UnitOutput) -> None:
        """Write images and PNGs."""
        table = self._table()
        for record in records:
            self.write_image(record, output)
            png = encode_label(table[record.label], palette=None)
            output.write(f"annotations/semantic_{self.split}/{record.image_id}.png", png)

    def annotations(self, numbers: Mapping[str, int], exported: ExportedUnits) -> Iterator[dict[str, Any]]:
        """Iterate over one annotation per image."""
        for image in exported.images():
            yield {"image_id": numbers[image.image_id], "file_name": f"{image.image_id}.png"}

    def extra_fields(self) -> dict[str, Any]:
        """Return the values that are no category."""
        table = self._table()
        return {
            "background_id": int(table[self.classes.background_id]),
            "ignore_id": int(table[self.classes.ignore_id]),
        }

    def _table(self) -> np.ndarray:
        """Return the PNG value by class id, as uint8 or uint16."""
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
