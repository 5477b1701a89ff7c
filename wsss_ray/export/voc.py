"""The VOC tree, and the archive that the VOC test server takes."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from wsss_ray.classes import ClassSet, voc_color
from wsss_ray.export.formats import Ending, Format
from wsss_ray.export.records import Record
from wsss_ray.export.segments import paint_segments
from wsss_ray.export.sheets import Sheet
from wsss_ray.images.label_png import encode_label

_RESULTS = "results/VOC2012/Segmentation/comp6_test_cls"
_OBJECT_PALETTE = bytes(value for index in range(255) for value in voc_color(index)) + bytes((224, 224, 192))


@dataclass(frozen=True, kw_only=True)
class VocTree(Format):
    """JPEGImages, SegmentationClass, SegmentationObject and ImageSets/Segmentation, as VOCdevkit has them.

    SegmentationClass has the class set's ids and colours (16-bit grey above 254 classes). SegmentationObject, for runs
    that have instances, numbers the objects of an image from 1 in the same pixels; 255 is ignored, and an image with
    more than 254 objects is 16-bit grey with 65535.
    """

    name: ClassVar[str] = "voc"
    picture_folder: ClassVar[str | None] = "JPEGImages"

    def write(self, records: Iterable[Record], sheet: Sheet) -> None:
        """Write each image's files."""
        palette = self.palette
        for record in records:
            name = f"{record.image_id}.png"
            self.write_picture(record, sheet)
            sheet.counts["images not JPEG"] += record.picture is not None and not record.file_name.endswith(".jpg")
            sheet.write(f"SegmentationClass/{name}", encode_label(record.label, palette=palette))
            if record.instances is not None:
                sheet.write(f"SegmentationObject/{name}", self._objects(record, sheet))

    def finish(self, ending: Ending) -> list[str]:
        """Write the list of the split."""
        with ending.output.writing(f"ImageSets/Segmentation/{self.split}.txt") as file:
            for entry in ending.parts.entries():
                file.write(f"{entry.image_id}\n".encode())
        notes = []
        others = ending.counts["images not JPEG"]
        if others:
            notes.append(
                f"{others:,} images are not JPEG and keep their own suffix; readers that expect "
                "JPEGImages/*.jpg will not find them."
            )
        if "objects" not in ending.counts:
            notes.append("predictions hold no instances: there is no SegmentationObject.")
        return notes

    def _objects(self, record: Record, sheet: Sheet) -> bytes:
        painted = paint_segments(record, self.classes, self.paint)
        sheet.counts["objects"] += len(painted.segments)
        sheet.counts["masks hidden by others"] += painted.hidden
        small = len(painted.segments) <= 254
        objects = painted.numbers.astype(np.uint8 if small else np.uint16)
        objects[record.label == self.classes.ignore_id] = 255 if small else 65535
        return encode_label(objects, palette=_OBJECT_PALETTE)


@dataclass(frozen=True, kw_only=True)
class VocTest(Format):
    """results.tar.gz with results/VOC2012/Segmentation/comp6_test_cls/<id>.png: palette PNGs of VOC's 21 ids.

    The server refuses ids above 20, so ignored pixels become background and are counted.
    """

    name: ClassVar[str] = "voc-test"
    holds_pictures: ClassVar[bool] = False
    has_parts: ClassVar[bool] = True

    def refusal(self) -> str | None:
        """It takes VOC's classes alone."""
        if self.classes.label_space_digest != ClassSet.load("voc").label_space_digest:
            return (
                f"the VOC test server judges VOC's 20 classes and their ids; the labels have those of "
                f"'{self.classes.name}'. Use another --format, or labels made with --classes voc."
            )
        return None

    def write(self, records: Iterable[Record], sheet: Sheet) -> None:
        """Add each label to the part, which is a piece of the archive."""
        # Never closed: the mark of the archive's end comes once, after the last part.
        archive = tarfile.TarFile(fileobj=sheet.part, mode="w", format=tarfile.GNU_FORMAT)
        for record in records:
            label = record.label.copy()
            ignored = label == self.classes.ignore_id
            label[ignored] = self.classes.background_id
            sheet.counts["ignored pixels made background"] += int(np.count_nonzero(ignored))
            data = encode_label(label, palette=self.palette)
            entry = tarfile.TarInfo(f"{_RESULTS}/{record.image_id}.png")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))

    def finish(self, ending: Ending) -> list[str]:
        """Join the pieces to the archive."""
        with (
            ending.output.writing("results.tar.gz") as file,
            gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed,
        ):
            for part in ending.parts.parts():
                packed.write(part)
            packed.write(bytes(2 * tarfile.BLOCKSIZE))
        return [f"upload {ending.output.describe('results.tar.gz')}: {ending.counts['images']:,} images."]
