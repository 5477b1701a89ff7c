"""Configuration of the export job."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from wsss_ray.config.shared import RayConfig, StorageConfig, require


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write labels in the forms that other tools read."""

    labels: str
    """Run directory of `wsss-ray label` or `wsss-ray predict`."""
    images: str
    """Directory or `s3://` prefix of the image shards that were labelled."""
    output: str
    """Directory or `s3://` prefix; it must be empty or hold an earlier call of the same export."""
    format: Literal["voc", "coco-instances", "coco-panoptic", "coco-semantic", "yolo-seg", "huggingface", "voc-test"]
    """voc: tree of palette PNGs and ImageSets. coco-instances: JSON with RLE, boxes, scores and COCO category ids.
    coco-panoptic, coco-semantic: PNGs and JSON. yolo-seg: polygons (needs the extra `export`). huggingface: Parquet
    with image and label features. voc-test: the archive that the VOC test server takes. Predictions hold no instances:
    for them, voc, coco-semantic, huggingface and voc-test."""
    classes: str = "voc"
    """Class set: voc, voc-raw, coco, demo, or the path of a YAML file."""
    split: str = "train"
    """Name of the split in file and folder names."""
    copy_images: bool = True
    """Also write the images, where the format has a place for them: the original bytes, named by image id. Only where
    EXIF would make some readers turn an image and others not, it is written so that all of them see what its label
    belongs to: shards that apply EXIF give it turned upright (JPEG of quality 95, else PNG), shards that ignore it give
    the stored pixels without the orientation. Off: JSON files name the images by their original paths."""
    polygon_tolerance: float = 0.0
    """yolo-seg: how far, in pixels, a simplified polygon may stray from the outline of its mask; 0: every corner is
    kept. 1 shortens the files several times; the summary states the loss either way."""
    status_seconds: float = 5.0
    """Seconds between status lines."""
    storage: StorageConfig = field(default_factory=StorageConfig)
    """Object storage."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Cluster."""

    def __post_init__(self) -> None:
        """Check ranges."""
        plain = re.fullmatch(r"(?!\.)[A-Za-z0-9._-]{1,100}", self.split) is not None
        require(self, "split", plain, "letters, digits, '.', '_' and '-', since it becomes a file name")
        require(self, "polygon_tolerance", 0 <= self.polygon_tolerance <= 100, "from 0 to 100")
        require(self, "status_seconds", self.status_seconds > 0, "more than 0")
