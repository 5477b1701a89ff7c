"""YOLO-seg: one text file of polygons per image, and data.yaml, as ultralytics reads them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import yaml

from wsss_ray.export.formats import Ending, Format
from wsss_ray.export.records import Record
from wsss_ray.export.sheets import Sheet

_ROLES = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class YoloSeg(Format):
    """images/<split>/, labels/<split>/<id>.txt and data.yaml.

    A line is a class (its place in the class set, from 0) and one polygon, x and y in turn as shares of width and
    height. Corners are at pixel centres, (column + 0.5) / width: ultralytics cuts them to whole pixels and fills the
    very pixels that were traced. An image without a mask has an empty file, which makes it background. What polygons
    lose (see `polygons`) is counted in pixels, and as IoU in the summary.
    """

    name: ClassVar[str] = "yolo-seg"
    needs_instances: ClassVar[bool] = True
    picture_folder: ClassVar[str | None] = "images/{split}"

    def refusal(self) -> str | None:
        """It needs OpenCV."""
        if importlib.util.find_spec("cv2") is None:
            return "yolo-seg traces masks with OpenCV, which is not installed: pip install 'wsss-ray[export]'."
        return None

    def write(self, records: Iterable[Record], sheet: Sheet) -> None:
        """Write each image and its polygons."""
        index = {entry.id: place for place, entry in enumerate(self.classes.classes)}
        for record in records:
            self.write_picture(record, sheet)
            sheet.counts["images as GIF"] += record.picture is not None and record.file_name.endswith(".gif")
            lines = [self._line(record, number, index, sheet) for number in range(len(record.instances or ()))]
            sheet.write(f"labels/{self.split}/{record.image_id}.txt", "".join(lines).encode())

    def finish(self, ending: Ending) -> list[str]:
        """Write data.yaml."""
        role = next((role for role in _ROLES if self.split.startswith(role)), "train")
        folders = {name: f"images/{self.split}" if name == role else None for name in _ROLES}
        names = {place: entry.name for place, entry in enumerate(self.classes.classes)}
        text = (
            "# Folders are relative to this file. ultralytics needs train and val: export the other split into one\n"
            "# of its own and write the path of its images here.\n"
        ) + yaml.safe_dump({**folders, "names": names}, sort_keys=False, allow_unicode=True)
        ending.output.write("data.yaml", text.encode())
        notes = _describe_loss(ending.counts)
        if ending.counts["images as GIF"]:
            notes.append(f"{ending.counts['images as GIF']:,} images are GIF, which ultralytics does not read.")
        return notes

    def _line(self, record: Record, number: int, index: Mapping[int, int], sheet: Sheet) -> str:
        from wsss_ray.export.polygons import trace  # noqa: PLC0415 - the other formats do without OpenCV

        assert record.instances is not None
        instance = record.instances[number]
        polygon = trace(instance.mask(), tolerance=self.polygon_tolerance)
        if polygon is None:
            sheet.counts["empty masks left out"] += 1
            return ""
        sheet.counts["polygons"] += 1
        sheet.counts["polygons in pieces"] += polygon.pieces > 1
        sheet.counts["polygons over holes"] += polygon.hole_pixels > 0
        sheet.counts["corners"] += len(polygon.points)
        sheet.counts["pixels of masks"] += polygon.mask_pixels
        sheet.counts["pixels of filled holes"] += polygon.hole_pixels
        sheet.counts["pixels of bridges and outlines"] += polygon.other_pixels
        sheet.counts["pixels lost"] += polygon.lost_pixels
        shares = (polygon.points + 0.5) / np.array([record.width, record.height])
        return f"{index[instance.class_id]} {' '.join(f'{value:.6f}' for value in shares.reshape(-1).tolist())}\n"


def _describe_loss(counts: Mapping[str, int]) -> list[str]:
    masks = counts.get("pixels of masks", 0)
    if not masks:
        return ["there is no mask: all label files are empty."]
    holes, other, lost = (counts[f"pixels {name}"] for name in ("of filled holes", "of bridges and outlines", "lost"))
    return [
        f"{counts['polygons']:,} polygons fill the masks with IoU {(masks - lost) / (masks + holes + other):.4f} over "
        f"all pixels: of {masks:,} mask pixels {lost:,} are lost; {holes:,} pixels of holes are filled (in "
        f"{counts['polygons over holes']:,} masks), {other:,} are added by bridges between the pieces of "
        f"{counts['polygons in pieces']:,} masks and by simplified outlines. {counts['corners']:,} corners."
    ]
