"""Configuration of the audit job."""

from __future__ import annotations

from dataclasses import dataclass

from wsss_ray.config.shared import LabelReaderConfig, require


@dataclass(frozen=True, kw_only=True)
class AuditConfig(LabelReaderConfig):
    """Rank the images of a labelling run by how likely their labels are wrong."""

    labels: str
    """Run directory of `wsss-ray label`."""
    output: str
    """Directory or `s3://` prefix for audit.parquet and audit.json."""
    largest_share: float = 0.95
    """A class that covers more of an image than this is suspicious (0 to 1)."""
    smallest_share: float = 0.001
    """A class that covers less of an image than this is suspicious (0 to 1)."""
    same_object_iou: float = 0.8
    """Boxes of different classes that overlap more than this IoU count as one object."""
    low_mask_score: float = 0.7
    """SAM's predicted IoU below which a mask is suspicious."""
    near_threshold: float = 0.03
    """Detector scores less than this above the threshold of the run are suspicious."""
    drift: float = 4.0
    """A class drifts in a shard if its mean share there differs by more than this many standard errors."""
    most: int = 100_000
    """Largest length of the ranked lists of images and of regions; the counts are of all."""
    against_truth: bool = False
    """For shards with human labels: also rank the regions where these and SAM's masks differ most, as candidates
    for correcting the human label (paper, 5.2)."""
    disagreement_width: int = 5
    """Against the truth: regions narrower than this many pixels are left out: correct outlines differ so far."""
    smallest_disagreement: float = 0.001
    """Against the truth: regions that cover less of their image than this are left out (0 to 1)."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        shares = ("largest_share", "smallest_share", "same_object_iou", "low_mask_score", "near_threshold")
        for name in (*shares, "smallest_disagreement"):
            require(self, name, 0 <= getattr(self, name) <= 1, "from 0 to 1")
        for name in ("most", "disagreement_width"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("drift", "status_seconds"):
            require(self, name, getattr(self, name) > 0, "more than 0")
