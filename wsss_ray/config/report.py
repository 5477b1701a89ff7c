"""Configuration of the gallery job."""

from __future__ import annotations

from dataclasses import dataclass, field

from wsss_ray.config.shared import RayConfig, StorageConfig, require


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Write a static HTML gallery of labels: a folder that opens from disk or a bucket."""

    labels: str
    """Run directory of `wsss-ray label` or `wsss-ray predict`."""
    images: str
    """Directory or `s3://` prefix of the image shards that were labelled."""
    output: str
    """Directory or `s3://` prefix for the gallery; open its index.html."""
    classes: str = "voc"
    """Class set: voc, voc-raw, coco, demo, or the path of a YAML file."""
    audit: str | None = None
    """Output of `wsss-ray audit`, to show its reasons and sort by its rank."""
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
