"""Configuration of the doctor."""

from __future__ import annotations

from dataclasses import dataclass

from wsss_ray.config.label import LabelConfig
from wsss_ray.config.shared import require


@dataclass(frozen=True, kw_only=True)
class DoctorConfig(LabelConfig):
    """Check in seconds whether every node of a cluster can run a labelling job.

    Takes the configuration and flags of `wsss-ray label`: `wsss-ray doctor --config coco --input SHARDS --output RUN`.
    On each node: equal versions, open files, shared memory, the GPU's driver and memory, a matrix product in the job's
    precisions against the data sheet, a file written to and read from the output, the image shards, the weights'
    digests, the clock. Ends with status 1 and what to do where a job would fail.
    """

    input: str = ""
    """Directory or `s3://` prefix of image shards. Unset: not checked."""
    output: str = ""
    """Run directory or `s3://` prefix; a small file is written there and removed. Unset: not checked."""
    timeout_seconds: float = 120.0
    """Seconds after which a node counts as not answering."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        require(self, "timeout_seconds", self.timeout_seconds > 0, "more than 0")
