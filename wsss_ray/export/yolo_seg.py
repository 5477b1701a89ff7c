"""YOLO-seg: one text file of polygons per image, and data.yaml, as ultralytics reads them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np
import yaml

from wsss_ray.export.exported import ExportedUnits
from wsss_ray.export.format import EXPORT_FORMATS, ExportFormat
from wsss_ray.export.records import Record
from wsss_ray.export.unit_output import UnitOutput
from wsss_ray.shards.instance import Instance

_ROLES = ("train", "val", "test")


@EXPORT_FORMATS.register("yolo-seg")
class YoloSeg(ExportFormat):
    """images/<split>/, labels/<split>/<id>.txt and data.yaml.

    A line is a class (its index in the class set, from 0) and one polygon: x and y in turn, as shares of width and
    height. Corners are at pixel centers, (column + 0.5) / width; ultralytics truncates them to whole pixels and fills
    exactly the pixels that were traced. An image without a mask has an empty file, which makes it background. Pixels
    that polygons lose (see `polygons`) are counted and given as IoU in the summary.
    """

    needs_instances: ClassVar[bool] = True
    draws_polygons: ClassVar[bool] = True
    image_folder: ClassVar[str | None] = "images/{split}"

    def refusal(self) -> str | None:
        """Refuse an environment without OpenCV."""
        if importlib.util.find_spec("cv2") is None:
            return "yolo-seg traces masks with OpenCV, which is not installed: pip install 'wsss-ray[export]'."
        return None

    def write(self, records: Iterable[Record], output: UnitOutput) -> None:
        """Write each image and its polygons."""
        indices = {entry.id: index for index, entry in enumerate(self.classes.classes)}
        for record in records:
            self.write_image(record, output)
            output.counts["images as GIF"] += record.image is not None and record.file_name.endswith(".gif")
            lines = [self._line(instance, indices, output) for instance in record.instances or ()]
            output.write(f"labels/{self.split}/{record.image_id}.txt", "".join(lines).encode())

    def finish(self, exported: ExportedUnits) -> list[str]:
        """Write data.yaml."""
        role = next((role for role in _ROLES if self.split.startswith(role)), "train")
        folders = {name: f"images/{self.split}" if name == role else None for name in _ROLES}
        names = {index: entry.name for index, entry in enumerate(self.classes.classes)}
        text = (
            "# Folders are relative to this file. ultralytics needs train and val: export the other split to\n"
            "# another folder and write the path of its images here.\n"
        ) + yaml.safe_dump({**folders, "names": names}, sort_keys=False, allow_unicode=True)
        exported.output.write("data.yaml", text.encode())
        notes = _describe_loss(exported.counts)
        if exported.counts["images as GIF"]:
            notes.append(f"{exported.counts['images as GIF']:,} images are GIF, which ultralytics does not read.")
        return notes

    def _line(self, instance: Instance, indices: Mapping[int, int], output: UnitOutput) -> str:
        from wsss_ray.export.polygons import trace  # noqa: PLC0415 - the other formats do not need OpenCV

        polygon = trace(instance.mask(), tolerance=self.polygon_tolerance)
        if polygon is None:
            output.counts["empty masks left out"] += 1
            return ""
        output.counts["polygons"] += 1
        output.counts["polygons in pieces"] += polygon.pieces > 1
        output.counts["polygons over holes"] += polygon.hole_pixels > 0
        output.counts["corners"] += len(polygon.points)
        output.counts["pixels of masks"] += polygon.mask_pixels
        output.counts["pixels of filled holes"] += polygon.hole_pixels
        output.counts["pixels of bridges and outlines"] += polygon.other_pixels
        output.counts["pixels lost"] += polygon.lost_pixels
        shares = (polygon.points + 0.5) / np.array([instance.width, instance.height])
        return f"{indices[instance.class_id]} {' '.join(f'{value:.6f}' for value in shares.reshape(-1).tolist())}\n"


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
