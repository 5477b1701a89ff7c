"""Configurations of the jobs that use labels: evaluation, audit, gallery and export."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from wsss_ray.config.parts import RayConfig, StorageConfig, require


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Judge labels or predictions against a ground truth: mIoU as the field counts it.

    One confusion matrix over all pixels; the background is a class; pixels whose truth is no class (ignore) are left
    out; the mean is over the classes present in the truth. A prediction of ignore counts as background, and so does an
    image without a usable label; "dropped" gives the mIoU without those pixels, with its coverage. The truth is that of
    the image shards, a folder of PNGs, or COCO's instances JSON, painted by the rules of `jobs/shard.py`.
    """

    labels: str
    """Run directory of `jobs/label.py` or `jobs/predict.py`, or any folder of label PNGs (class ids, as displayed)
    named by image id, of any method."""
    images: str
    """Directory or `s3://` prefix of image shards: ids, sizes, tags, and the truth where they hold it."""
    output: str
    """Directory or `s3://` prefix for evaluation.json, evaluation.txt, confusion.png and images.parquet."""
    truth: str | None = None
    """Folder of truth PNGs named by image id, on the images' stored pixels. Unset: the truth in the image shards."""
    coco_annotations: str | None = None
    """Path of a COCO instances JSON to take as truth instead, images matched by `file_name` without its suffix. The
    driver reads it whole, as `jobs/shard.py` does; each task gets the annotations of its images alone."""
    coco_order: Literal["area", "json"] = "area"
    """With coco_annotations: paint large annotations first (area) or in the file's order (json)."""
    coco_crowd: Literal["include", "exclude", "ignore"] = "ignore"
    """With coco_annotations: crowd regions are painted as their class, left out, or painted as ignore."""
    classes: str = "voc"
    """Class set: voc, voc-raw, coco, demo, or the path of a YAML file."""
    split: str | None = None
    """Name of the split for the table's head, such as "train" or "val". Unset: not stated."""
    subset: str | None = None
    """Text file of image ids, one a line (or a VOC list), to judge these alone."""
    missing: Literal["count", "error"] = "count"
    """Images without a label or with a failed one: counted, listed and judged as background; or also an error, once the
    tables are written."""
    bootstrap: int = 1000
    """Resamples of images for the 95 % interval of the mIoU; 0: none."""
    boundary: bool = True
    """Also compute the boundary IoU (Cheng et al. 2021, summed over classes), about a third of the time."""
    boundary_ratio: float = 0.02
    """Width of the boundary as a share of the image diagonal."""
    instances: bool = True
    """Also compute the recall of tagged objects: an object of the truth is recalled when a predicted mask of its class,
    given to it alone, has an IoU of at least 0.5. Objects are the annotations that are no crowd with coco_annotations,
    else the connected parts of each class in the truth; masks are the instances of the label rows, else the connected
    parts of the label. The table says which were used."""
    smallest_object: int = 100
    """Pixels below which a connected part of the truth is no object."""
    seed: int = 0
    """Seed of the resampling."""
    status_seconds: float = 5.0
    """Seconds between status lines."""
    storage: StorageConfig = field(default_factory=StorageConfig)
    """Object storage."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Cluster."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self, "bootstrap", self.bootstrap >= 0, "0 or more")
        require(self, "boundary_ratio", 0 < self.boundary_ratio < 1, "above 0 and below 1")
        require(self, "smallest_object", self.smallest_object >= 1, "at least 1")
        require(self, "coco_annotations", not (self.coco_annotations and self.truth), "unset where `truth` is given")
        require(self, "status_seconds", self.status_seconds > 0, "more than 0")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write labels in the forms that other tools read."""

    labels: str
    """Run directory of `jobs/label.py` or `jobs/predict.py`."""
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


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """Rank the images of a labelling run that deserve a look, by what the labels themselves tell."""

    labels: str
    """Run directory of `jobs/label.py`."""
    images: str
    """Directory or `s3://` prefix of the image shards that were labelled."""
    output: str
    """Directory or `s3://` prefix for audit.parquet and audit.json."""
    classes: str = "voc"
    """Class set: voc, voc-raw, coco, demo, or the path of a YAML file."""
    largest_share: float = 0.95
    """A class that covers more of an image than this is suspicious (0 to 1)."""
    smallest_share: float = 0.001
    """A class that covers less of an image than this is suspicious (0 to 1)."""
    same_object_iou: float = 0.8
    """Boxes of different classes that overlap more than this IoU are taken for one object."""
    low_mask_score: float = 0.7
    """SAM's predicted IoU below which a mask is suspicious."""
    near_threshold: float = 0.03
    """Detector scores less than this above the threshold of the run are suspicious."""
    drift: float = 4.0
    """A class is said to drift in a shard whose mean share of it is more than this many standard errors off."""
    most: int = 100_000
    """Images, and places, in the ranked lists at most; the counts are of all."""
    against_truth: bool = False
    """Where the shards hold human labels: also rank the places where they and SAM's masks disagree most, as candidates
    for correcting the human label (paper, 5.2)."""
    place_width: int = 5
    """Against the truth: disagreement narrower than this many pixels is a matter of outlines, and no place."""
    smallest_place: float = 0.001
    """Against the truth: places that cover less of their image than this are left out (0 to 1)."""
    status_seconds: float = 5.0
    """Seconds between status lines."""
    storage: StorageConfig = field(default_factory=StorageConfig)
    """Object storage."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Cluster."""

    def __post_init__(self) -> None:
        """Check ranges."""
        shares = ("largest_share", "smallest_share", "same_object_iou", "low_mask_score", "near_threshold")
        for name in (*shares, "smallest_place"):
            require(self, name, 0 <= getattr(self, name) <= 1, "from 0 to 1")
        for name in ("most", "place_width"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("drift", "status_seconds"):
            require(self, name, getattr(self, name) > 0, "more than 0")


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Make one static HTML gallery of labels: a folder that opens from disk or a bucket."""

    labels: str
    """Run directory of `jobs/label.py` or `jobs/predict.py`."""
    images: str
    """Directory or `s3://` prefix of the image shards that were labelled."""
    output: str
    """Directory or `s3://` prefix for the gallery; open its index.html."""
    classes: str = "voc"
    """Class set: voc, voc-raw, coco, demo, or the path of a YAML file."""
    audit: str | None = None
    """Output of `jobs/audit.py`, to show its reasons and sort by its rank."""
    sample: int | None = None
    """Show this many images, drawn by `seed`. Unset: all. A page index of some 100 bytes per image is loaded at once,
    so 80,000 images are better sampled."""
    seed: int = 0
    """Seed of the sample."""
    images_per_page: int = 60
    """Images on one page."""
    thumbnail: int = 256
    """Longest side of a thumbnail, in pixels."""
    picture: int = 640
    """Longest side of the picture in the viewer, in pixels; smaller images keep their size."""
    title: str = "wsss_ray labels"
    """Title of the gallery."""
    status_seconds: float = 5.0
    """Seconds between status lines."""
    storage: StorageConfig = field(default_factory=StorageConfig)
    """Object storage."""
    ray: RayConfig = field(default_factory=RayConfig)
    """Cluster."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self, "sample", self.sample is None or self.sample >= 1, "at least 1")
        require(self, "images_per_page", self.images_per_page >= 1, "at least 1")
        for name in ("thumbnail", "picture"):
            require(self, name, getattr(self, name) >= 32, "at least 32")
        require(self, "status_seconds", self.status_seconds > 0, "more than 0")


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """The embedded demo, end to end and offline: draw scenes, shard, label, judge and show them, and train a student.

    The student learns from pseudo-labels of train scenes that nobody was trained on, and is judged on the demo's.
    """

    output: str = "runs/demo"
    """Local directory for scenes, shards, labels and tables. A rerun does only what is missing."""
    scenes: int = 96
    """Scenes to draw."""
    split: Literal["validation", "test"] = "validation"
    """Which reserved seeds to draw: those that everything was tuned on, or those kept for the final table."""
    parts: bool = False
    """Also judge the models part by part: SAM from exact boxes, the detector's recall, labels without assist words."""
    student_scenes: int = 256
    """Scenes to label for the student to learn from; 0: no student."""
    student_iterations: int = 1200
    """Updates of the student: about half of the training job's preset "demo", so that the demo ends within minutes."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self, "scenes", self.scenes >= 1, "at least 1")
        require(self, "student_scenes", self.student_scenes >= 0, "0 or more")
        require(self, "student_iterations", self.student_iterations >= 1, "at least 1")
