"""The base class of export formats, and their registry.

To add a format, write a subclass in a package of your own and register it by decorator or by entry point:

    @EXPORT_FORMATS.register("my-format")
    class MyFormat(ExportFormat):
        def write(self, records, output):
            for record in records:
                output.write(f"{record.image_id}.txt", " ".join(record.tags).encode())
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from wsss_ray.registry import Registry

if TYPE_CHECKING:
    from wsss_ray.classes import ClassSet
    from wsss_ray.export.exported import ExportedUnits
    from wsss_ray.export.records import Record
    from wsss_ray.export.unit_output import UnitOutput


@dataclass(frozen=True, kw_only=True)
class ExportFormat(ABC):
    """A format of the export job. Instances are pickled to Ray tasks."""

    classes: ClassSet
    split: str
    copy_images: bool
    paint: str
    """Rule of the labelling run for pixels that several masks cover; see `FusionConfig.paint`."""
    polygon_tolerance: float
    has_instances: bool
    """False for predictions, whose rows have no instances."""

    version: ClassVar[int] = 1
    """Increase it when the same labels give other files: a finished export of another version is refused."""
    needs_instances: ClassVar[bool] = False
    """Whether predictions are refused."""
    draws_polygons: ClassVar[bool] = False
    """Whether `polygon_tolerance` changes the files."""
    image_folder: ClassVar[str | None] = None
    """Folder of the images, with `{split}` for the split; None if the format stores no image files."""
    holds_images: ClassVar[bool] = True
    """Whether the format contains images at all."""
    has_parts: ClassVar[bool] = False
    """Whether each unit writes a part (`UnitOutput.part`) that `finish` joins."""

    def refusal(self) -> str | None:
        """Return the reason why the classes, the options or the environment cannot give the format, or None."""
        return None

    @abstractmethod
    def write(self, records: Iterable[Record], output: UnitOutput) -> None:
        """Write the files of one unit. The same records must give the same bytes."""

    def finish(self, exported: ExportedUnits) -> list[str]:
        """Write the files that cover all units, and return notes for the user."""
        del exported
        return []

    @property
    def reads_images(self) -> bool:
        """Return whether the encoded images are read."""
        return self.holds_images and self.copy_images

    @property
    def palette(self) -> bytes | None:
        """Palette of label PNGs, None for 16-bit PNGs."""
        return self.classes.palette() if self.classes.label_dtype().itemsize == 1 else None

    def write_image(self, record: Record, output: UnitOutput) -> None:
        """Write the record's image to `image_folder`, if images are copied."""
        if record.image is not None and self.image_folder is not None:
            output.write(f"{self.image_folder.format(split=self.split)}/{record.file_name}", record.image)


EXPORT_FORMATS: Registry[type[ExportFormat]] = Registry(
    kind="export format",
    group="wsss_ray.export_formats",
    built_in={
        "voc": "wsss_ray.export.voc",
        "coco-instances": "wsss_ray.export.coco_instances",
        "coco-panoptic": "wsss_ray.export.coco_panoptic",
        "coco-semantic": "wsss_ray.export.coco_semantic",
        "yolo-seg": "wsss_ray.export.yolo_seg",
        "huggingface": "wsss_ray.export.huggingface",
        "voc-test": "wsss_ray.export.voc_test",
    },
)
"""Export formats by name, as `ExportConfig.format` gives it."""
