"""Configuration of the evaluation job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wsss_ray.config.shared import Input, LabelReaderConfig, given, require


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(LabelReaderConfig):
    """Evaluate labels or predictions against a ground truth: standard mIoU with its confidence interval.

    One confusion matrix over all pixels; the background is a class; pixels whose truth is ignore are left
    out; the mean is over the classes present in the truth. A prediction of ignore counts as background, and so does an
    image without a usable label; "dropped" gives the mIoU without those pixels, with its coverage. The truth is that of
    the image shards, a folder of PNGs, or COCO's instances JSON, painted by the rules of `wsss-ray shard`.
    """

    labels: str
    """Run directory of `wsss-ray label` or `wsss-ray predict`, or any folder of label PNGs (class ids, as displayed)
    named by image id, of any method."""
    images: str
    """Directory or `s3://` prefix of image shards: ids, sizes, tags, and the ground truth, if the shards have one."""
    output: str
    """Directory or `s3://` prefix for evaluation.json, evaluation.txt, confusion.png and images.parquet."""
    truth: str | None = None
    """Folder of truth PNGs named by image id, on the images' stored pixels. Unset: the truth in the image shards."""
    coco_annotations: str | None = None
    """Path of a COCO instances JSON to take as truth instead, images matched by `file_name` without its suffix. The
    driver reads it whole, as `wsss-ray shard` does; each task gets only the annotations of its images."""
    coco_order: Literal["area", "json"] = "area"
    """With coco_annotations: paint large annotations first (area) or in the file's order (json)."""
    coco_crowd: Literal["include", "exclude", "ignore"] = "ignore"
    """With coco_annotations: crowd regions are painted as their class, left out, or painted as ignore."""
    split: str | None = None
    """Name of the split for the table's head, such as "train" or "val". Unset: not stated."""
    subset: str | None = None
    """Text file of image ids, one a line (or a VOC list), to evaluate only these."""
    missing: Literal["count", "skip", "error"] = "count"
    """Images without a label. count: they count as background, are counted and listed. skip: they are left out, so that
    a run with --limit is evaluated on its own images. error: as count, and the job ends with an error after it wrote
    the tables, also for failed labels. Images with a failed label always count as background."""
    bootstrap: int = 1000
    """Resamples of images for the 95 % interval of the mIoU; 0: none."""
    boundary: bool = True
    """Also compute the boundary IoU (Cheng et al. 2021, summed over classes): about a third of the time."""
    boundary_ratio: float = 0.02
    """Width of the boundary as a share of the image diagonal."""
    instances: bool = True
    """Also compute the recall of tagged objects: an object of the truth is recalled when a predicted mask of its class,
    matched to no other object, has an IoU of at least 0.5. Objects are the annotations that are no crowd with
    coco_annotations, otherwise the connected parts of each class in the truth; masks are the instances of the label
    rows, otherwise the connected parts of the label. The table says which were used."""
    smallest_object: int = 100
    """A connected part of the truth with fewer pixels is no object."""
    seed: int = 0
    """Seed of the resampling."""

    def inputs(self) -> tuple[Input, ...]:
        """Return what the job reads."""
        return super().inputs() + given(
            ("--truth", self.truth, "folder"),
            ("--coco-annotations", self.coco_annotations, "file"),
            ("--subset", self.subset, "file"),
        )

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        require(self, "bootstrap", self.bootstrap >= 0, "0 or more")
        require(self, "boundary_ratio", 0 < self.boundary_ratio < 1, "above 0 and below 1")
        require(self, "smallest_object", self.smallest_object >= 1, "at least 1")
        require(self, "coco_annotations", not (self.coco_annotations and self.truth), "unset where `truth` is given")
