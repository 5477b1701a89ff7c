"""The VOC format: a tree as in VOCdevkit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from wsss_ray.classes import IGNORE_COLOR, voc_color
from wsss_ray.export.exported import ExportedUnits
from wsss_ray.export.format import EXPORT_FORMATS, ExportFormat
from wsss_ray.export.records import Record
from wsss_ray.export.segments import divide_label
from wsss_ray.export.unit_output import UnitOutput
from wsss_ray.images.label_png import encode_label

_OBJECT_PALETTE = bytes(value for index in range(255) for value in voc_color(index)) + bytes(IGNORE_COLOR)


@EXPORT_FORMATS.register("voc")
class VocTree(ExportFormat):
    """JPEGImages, SegmentationClass, SegmentationObject and ImageSets/Segmentation, as in VOCdevkit.

    SegmentationClass has the ids and colors of the class set (16-bit gray above 254 classes). SegmentationObject, for
    runs with instances, numbers the objects of an image from 1 in the same pixels. 255 is ignore; an image with more
    than 254 objects is 16-bit gray with ignore 65535.
    """

    image_folder: ClassVar[str | None] = "JPEGImages"

    def write(self, records: Iterable[Record], output: UnitOutput) -> None:
        """Write the files of each image."""
        palette = self.palette
        for record in records:
            name = f"{record.image_id}.png"
            self.write_image(record, output)
            output.counts["images not JPEG"] += record.image is not None and not record.file_name.endswith(".jpg")
            output.write(f"SegmentationClass/{name}", encode_label(record.label, palette=palette))
            if record.instances is not None:
                output.write(f"SegmentationObject/{name}", self._objects(record, output))

    def finish(self, exported: ExportedUnits) -> list[str]:
        """Write the list of the split."""
        with exported.output.writing(f"ImageSets/Segmentation/{self.split}.txt") as file:
            for image in exported.images():
                file.write(f"{image.image_id}\n".encode())
        notes = []
        others = exported.counts["images not JPEG"]
        if others:
            notes.append(
                f"{others:,} images are not JPEG and keep their own suffix; readers that expect "
                "JPEGImages/*.jpg will not find them."
            )
        if not self.has_instances:
            notes.append("predictions have no instances: there is no SegmentationObject.")
        return notes

    def _objects(self, record: Record, output: UnitOutput) -> bytes:
        divided = divide_label(record, self.classes, self.paint)
        output.counts["objects"] += len(divided.segments)
        output.counts["masks hidden by others"] += divided.hidden
        small = len(divided.segments) <= 254
        objects = divided.numbers.astype(np.uint8 if small else np.uint16)
        objects[record.label == self.classes.ignore_id] = 255 if small else 65535
        return encode_label(objects, palette=_OBJECT_PALETTE)
