"""Configuration of the prediction job."""

from __future__ import annotations

from dataclasses import dataclass, field

from wsss_ray.config.models import Device, Precision
from wsss_ray.config.shared import Input, LabelRunConfig, given, require


@dataclass(frozen=True, kw_only=True)
class CrfConfig:
    """DenseCRF: a mean field over the real RGB image, with the published settings of DeepLab-v2."""

    iterations: int = 10
    """Rounds of the mean field."""
    position_weight: float = 3.0
    """Weight of the kernel over positions only; 0: off."""
    position_width: float = 1.0
    """Its standard deviation, in pixels."""
    bilateral_weight: float = 4.0
    """Weight of the kernel over positions and colors; 0: off."""
    xy_width: float = 67.0
    """Its standard deviation over positions, in pixels."""
    rgb_width: float = 3.0
    """Its standard deviation over colors, in grey levels of 0 to 255."""
    prune: float = 0.01
    """Classes whose probability stays below this in the whole image are left out, which is several times faster: they
    could not have become much more likely. 0: all classes take part."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self, "iterations", self.iterations >= 1, "at least 1")
        for name in ("position_weight", "bilateral_weight"):
            require(self, name, getattr(self, name) >= 0, "0 or more")
        for name in ("position_width", "xy_width", "rgb_width"):
            require(self, name, getattr(self, name) > 0, "more than 0")
        require(self, "prune", 0 <= self.prune < 1, "at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class PredictConfig(LabelRunConfig):
    """Predict labels of image shards with a trained student.

    The output has the form of a labelling run.
    Every image is predicted, whatever its tags, and by default at its own size; classes, palette and
    preprocessing are the student's.
    """

    input: str
    """Directory or `s3://` prefix of image shards, as `wsss-ray shard` writes them, of the student's classes."""
    student: str
    """The student: output of `wsss-ray train`, or the file `student.safetensors` that it writes there at its end."""
    flip: bool = False
    """Average the probabilities with those of the mirrored image, in twice the time."""
    crf: bool = False
    """Refine the probabilities by DenseCRF."""
    crf_settings: CrfConfig = field(default_factory=CrfConfig)
    """Its settings."""
    longest_side: int | None = None
    """Images with a longer side are shrunk to it for the student and DenseCRF, and their labels are then enlarged.
    Unset: every image at its own size. ResNet-101 with 21 classes then takes some 800 bytes of memory per pixel, 1,300
    with DenseCRF: 10 and 16 GB for a photo of 12 megapixels."""
    tags_only: bool = False
    """Allow each image only the classes it is tagged with, and the background: for refining pseudo-labels of tagged
    images, not for evaluating a student. Images without a tag become background, with the status no_tags."""
    soft: bool = False
    """Also write the probabilities, under soft/."""
    soft_threshold: float = 0.01
    """Classes whose probability stays below this in the whole image are left out of the soft scores (0 to 1)."""
    batch_size: int = 4
    """Images of equal size that run together; fewer where the device's memory is too small."""
    device: Device = "auto"
    """auto: CUDA where the actor has a GPU, else CPU."""
    precision: Precision = "auto"
    """auto: bfloat16 autocast on CUDA (float32 where the GPU has no native bfloat16), float32 on CPU. Probabilities and
    DenseCRF are always float32."""

    def inputs(self) -> tuple[Input, ...]:
        """Return what the job reads."""
        return given(("--input", self.input, "folder"), ("--student", self.student, "run"))

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        require(self, "longest_side", self.longest_side is None or self.longest_side >= 32, "at least 32")
        require(self, "soft_threshold", 0 <= self.soft_threshold < 1, "at least 0 and below 1")
        require(self, "batch_size", self.batch_size >= 1, "at least 1")
