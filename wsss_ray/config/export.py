"""Configuration of the export job."""

from __future__ import annotations

import re
from dataclasses import dataclass

from wsss_ray.config.shared import (
    LabelReaderConfig,
    require,
    require_registered,
)
from wsss_ray.export.format import EXPORT_FORMATS


@dataclass(frozen=True, kw_only=True)
class ExportConfig(LabelReaderConfig):
    """Export labels in the formats of other tools: VOC, COCO, YOLO-seg, Hugging Face."""

    output: str
    """Directory or `s3://` prefix; it must be empty or hold the same export, which is then continued."""
    format: str
    """voc: tree of palette PNGs and ImageSets. coco-instances: JSON with RLE, boxes, scores and COCO category ids.
    coco-panoptic, coco-semantic: PNGs and JSON. yolo-seg: polygons (needs the extra `export`). huggingface: Parquet
    with images, label maps, boxes and masks. voc-test: the archive for the VOC test server. Or a format that an
    installed package adds. Predictions have no instances: use voc, coco-semantic, huggingface or voc-test for them."""
    split: str = "train"
    """Name of the split in file and folder names."""
    only: str | None = None
    """File with one image id per line, by path or URI: export these images only. Unset: all."""
    exclude: str | None = None
    """File with one image id per line, by path or URI: do not export these images."""
    copy_images: bool = True
    """Also write the images, if the format contains them: the original bytes, named by image id. An image whose EXIF
    orientation some readers obey and others ignore is rewritten so that all readers see the pixels of its label: shards
    that apply EXIF give it turned upright (JPEG of quality 95, otherwise PNG), shards that ignore it give the stored
    pixels without the orientation. Off: JSON files name the images by their original paths."""
    polygon_tolerance: float = 0.0
    """yolo-seg: largest distance, in pixels, of a simplified polygon from the outline of its mask. 0 keeps every
    corner; 1 makes the files several times shorter. The summary states the loss."""

    def __post_init__(self) -> None:
        """Check ranges and the name of the format."""
        super().__post_init__()
        require_registered(self, "format", EXPORT_FORMATS)
        plain = re.fullmatch(r"(?!\.)[A-Za-z0-9._-]{1,100}", self.split) is not None
        require(self, "split", plain, "letters, digits, '.', '_' and '-', since it becomes a file name")
        require(self, "polygon_tolerance", 0 <= self.polygon_tolerance <= 100, "from 0 to 100")
