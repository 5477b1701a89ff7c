"""Configuration of the gallery job."""

from __future__ import annotations

from dataclasses import dataclass

from wsss_ray.config.shared import Input, LabelReaderConfig, given, require


@dataclass(frozen=True, kw_only=True)
class ReportConfig(LabelReaderConfig):
    """Write a static HTML gallery of labels: a folder that opens from disk or a bucket."""

    output: str
    """Directory or `s3://` prefix for the gallery; open its index.html."""
    audit: str | None = None
    """Output of `wsss-ray audit`: shows its reasons, and opens the images in the order of its ranks."""
    evaluation: str | None = None
    """Output of `wsss-ray evaluate` for these labels: shows the standard mIoU and the IoU of each class. Without it,
    the gallery shows only the mean over the images of each image's own mIoU."""
    sample: int | None = None
    """Show this number of images, drawn by `seed`. Unset: all. A browser loads an index of about 100 bytes per image at
    once, so sample large sets: 80,000 images make 8 MB."""
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

    def inputs(self) -> tuple[Input, ...]:
        """Return what the job reads."""
        return super().inputs() + given(
            ("--audit", self.audit, "folder"),
            ("--evaluation", self.evaluation, "folder"),
        )

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        require(self, "sample", self.sample is None or self.sample >= 1, "at least 1")
        require(self, "images_per_page", self.images_per_page >= 1, "at least 1")
        for name in ("thumbnail", "picture"):
            require(self, name, getattr(self, name) >= 32, "at least 32")
