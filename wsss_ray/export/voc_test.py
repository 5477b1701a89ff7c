"""The archive that the VOC test server accepts."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from wsss_ray.classes import ClassSet
from wsss_ray.export.exported import ExportedUnits
from wsss_ray.export.format import EXPORT_FORMATS, ExportFormat
from wsss_ray.export.records import Record
from wsss_ray.export.unit_output import UnitOutput
from wsss_ray.images.label_png import encode_label

_RESULTS = "results/VOC2012/Segmentation/comp6_test_cls"


@EXPORT_FORMATS.register("voc-test")
class VocTest(ExportFormat):
    """results.tar.gz with results/VOC2012/Segmentation/comp6_test_cls/<id>.png: palette PNGs with VOC's 21 ids.

    The server refuses ids above 20, so ignored pixels become background and are counted.
    """

    holds_images: ClassVar[bool] = False
    has_parts: ClassVar[bool] = True

    def refusal(self) -> str | None:
        """Refuse other classes than VOC's."""
        if self.classes.label_space_digest != ClassSet.load("voc").label_space_digest:
            return (
                f"the VOC test server evaluates VOC's 20 classes and their ids, but the labels have those of "
                f"'{self.classes.name}'. Use another --format, or labels made with --classes voc."
            )
        return None

    def write(self, records: Iterable[Record], output: UnitOutput) -> None:
        """Add each label to the part, a piece of the archive."""
        # Never closed: the end-of-archive blocks are written once, after the last part.
        archive = tarfile.TarFile(fileobj=output.part, mode="w", format=tarfile.GNU_FORMAT)
        for record in records:
            label = record.label.copy()
            ignored = label == self.classes.ignore_id
            label[ignored] = self.classes.background_id
            output.counts["ignored pixels made background"] += int(np.count_nonzero(ignored))
            data = encode_label(label, palette=self.palette)
            entry = tarfile.TarInfo(f"{_RESULTS}/{record.image_id}.png")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))

    def finish(self, exported: ExportedUnits) -> list[str]:
        """Join the parts to the archive."""
        with (
            exported.output.writing("results.tar.gz") as file,
            gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed,
        ):
            for part in exported.parts():
                packed.write(part)
            packed.write(bytes(2 * tarfile.BLOCKSIZE))
        return [f"upload {exported.output.describe('results.tar.gz')}: {exported.counts['images']:,} images."]
