"""Configuration of the sharding job."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from wsss_ray.config.shared import Input, RayConfig, StorageConfig, given, require, require_registered
from wsss_ray.datasets.source import SOURCES


@dataclass(frozen=True, kw_only=True)
class ShardConfig:
    """Pack a VOC tree, COCO, or a folder of images with tags into Parquet image shards.

    A folder's tags are in a table, tags.csv, UTF-8 with a header; `;` or `|` separates several tags of an image:

        file,tags
        pets/a.jpg,dog;person
        pets/b.jpg,cat
        empty.jpg,

    or in tags.jsonl, one object per line:

        {"file": "pets/a.jpg", "tags": ["dog", "person"]}
        {"file": "empty.jpg", "tags": []}

    Files are named relative to --input. Without a table, give --tags-for-all, or sort the images into folders that are
    named by class (cat/1.jpg, dog/2.jpg).
    """

    input: str
    """Root of the images: a VOCdevkit (or VOC2012) tree, a COCO image directory, any folder, or a single image."""
    output: str
    """Directory or `s3://` prefix for the shards."""
    source: str = "folder"
    """Form of the input: voc, coco, folder, or a source that an installed package adds."""
    classes: str | None = None
    """Class set: voc, voc-raw, coco, demo, or the path of a YAML file. Unset: coco for COCO, else voc."""
    unknown_tags: Literal["error", "drop"] = "error"
    """What to do with a tag that is no class or alias: stop and name near matches, or drop and count it."""
    split: str | None = None
    """VOC: name of a list in ImageSets/Segmentation, or path of a list file (bare ids, `/JPEGImages/x.jpg
    /SegmentationClassAug/x.png` pairs, or `id class class`). Unset: train."""
    voc_tags: Literal["auto", "xml", "cls_labels", "masks"] = "auto"
    """VOC: where tags come from. auto: cls_labels where `tags` names a file, else the list's class numbers where it has
    them, else XML where all images have one, else the masks. Objects marked difficult count."""
    voc_truth: str | None = None
    """VOC: folder of the truth masks below the tree. Unset: SegmentationClassAug where it has the image, else
    SegmentationClass. "none": no truth."""
    annotations: str | None = None
    """COCO: path of the instances JSON."""
    truth: str | None = None
    """Folder of truth PNGs (folder and COCO sources), named as the images. Unset: COCO rasterises its instances,
    a folder has none."""
    order: Literal["area", "json"] = "area"
    """COCO truth: paint large annotations first (area) or in the file's order (json)."""
    crowd: Literal["include", "exclude", "ignore"] = "ignore"
    """COCO truth: crowd regions are painted as their class, left out, or painted as ignore."""
    crowd_tags: bool = True
    """COCO: whether a crowd annotation gives its image a tag (as published)."""
    untagged: Literal["keep", "skip"] = "keep"
    """Images without a tag: kept (their label will be background) or left out and counted."""
    tags: str | None = None
    """Folder: table of tags, .csv or .jsonl (see above). VOC: path of cls_labels.npy."""
    tags_for_all: tuple[str, ...] = ()
    """Folder: these tags for every image, separated by spaces or commas, instead of a table."""
    exif: Literal["auto", "apply", "ignore"] = "auto"
    """EXIF orientation. auto: applied for folders, ignored for VOC and COCO, whose truth is on stored pixels."""
    images_per_unit: int = 32
    """Images per unit (a row group): what is processed, retried and resumed as a whole."""
    shard_mb: int = 256
    """Target size of a shard in MB (10^6 bytes)."""
    max_pixels: int = 100_000_000
    """Larger images are rejected before they are decoded, by this job and by later ones; at most 10^9."""
    max_file_mb: int = 200
    """Larger files are rejected before they are read (10^6 bytes)."""
    storage: StorageConfig = field(default_factory=StorageConfig)
    """Object storage."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Cluster."""

    def inputs(self) -> tuple[Input, ...]:
        """Return what the job reads."""
        return given(
            ("--input", self.input, "folder"),
            ("--truth", self.truth, "folder"),
            ("--tags", self.tags, "file"),
            ("--annotations", self.annotations, "file"),
        )

    def __post_init__(self) -> None:
        """Check the source's name and ranges."""
        require_registered(self, "source", SOURCES)
        for name in ("images_per_unit", "shard_mb", "max_pixels", "max_file_mb"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        require(self, "max_pixels", self.max_pixels <= 10**9, "at most 1,000,000,000")
