"""SAM as a registered segmenter. Importing this module does not import the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from wsss_ray.addresses import is_uri
from wsss_ray.config.models import SEGMENTER_SETTINGS, SegmenterConfig
from wsss_ray.models.protocols import Segmenter, Weights
from wsss_ray.models.registries import SEGMENTERS
from wsss_ray.models.results import MaskCrop
from wsss_ray.models.sam.weights import checkpoint_path, files_of

if TYPE_CHECKING:
    from wsss_ray.models.sam.boxes import Prompted, SamBoxes


@SEGMENTERS.register("sam")
class SamSegmenter(Segmenter):
    """SAM by segment-anything, one mask per box (paper, 3.2)."""

    settings: ClassVar[frozenset[str]] = frozenset(SEGMENTER_SETTINGS)
    models: ClassVar[tuple[str, ...] | None] = ("vit_h", "vit_l", "vit_b", "tiny")

    def __init__(self, config: SegmenterConfig, *, checkpoint: str | None = None) -> None:
        """Load the network; arguments and errors as `Segmenter`."""
        from wsss_ray.models.sam.boxes import SamBoxes  # noqa: PLC0415 - seconds, and drivers do not need it

        self.network: SamBoxes = SamBoxes(config, checkpoint=checkpoint)

    def prepare(self, images: Iterable[NDArray[np.uint8]], boxes: Iterable[NDArray[np.float32]]) -> Iterator[Prompted]:
        """Yield the resized images that have boxes, as `SamBoxes.prepare`."""
        return self.network.prepare(images, boxes)

    def masks(self, prepared: Iterable[Prompted], *, probabilities: bool = False) -> Iterator[tuple[int, MaskCrop]]:
        """Yield the masks of prepared images, as `SamBoxes.masks`."""
        return self.network.masks(prepared, probabilities=probabilities)

    @classmethod
    def weights(cls, config: SegmenterConfig) -> Weights:
        """Return where the weights are; the demo's tiny model is a directory of two files."""
        if config.checkpoint is None or not is_uri(config.checkpoint):
            return Weights(files=files_of(config.model, checkpoint_path(config)), sha256=config.sha256)
        if config.model == "tiny":
            directory = config.checkpoint.removesuffix("/model.safetensors")
            return Weights(uri=config.checkpoint, copied=directory, sha256=config.sha256)
        return Weights(uri=config.checkpoint, is_directory=False, sha256=config.sha256)

    @classmethod
    def check(cls, config: SegmenterConfig, weights: Weights) -> None:
        """Check that a local checkpoint holds the configured network, as `Segmenter.check`."""
        if config.checkpoint is not None and weights.files:
            from wsss_ray.models.sam.loading import check_sam  # noqa: PLC0415 - torch, which takes seconds

            check_sam(config.model, weights.files[0], digest_given=config.sha256 is not None)
