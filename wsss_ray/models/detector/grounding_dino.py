"""Grounding DINO as a registered detector. Importing this module does not import the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from wsss_ray.addresses import local_path
from wsss_ray.classes import ClassSet
from wsss_ray.config.models import DETECTOR_SETTINGS, DetectorConfig
from wsss_ray.models.protocols import Detector, Weights
from wsss_ray.models.registries import DETECTORS
from wsss_ray.models.results import Detections

if TYPE_CHECKING:
    from wsss_ray.models.detector.network import GroundingDino


PINNED_COMMITS = {"IDEA-Research/grounding-dino-tiny": "a2bb814dd30d776dcf7e30523b00659f4f141c71"}
"""Commit of the default hub model."""


def pinned(config: DetectorConfig) -> DetectorConfig:
    """Return the configuration with the pinned commit of its model, unless it gives one itself."""
    if config.revision is not None or local_path(config.model).is_dir():
        return config
    return replace(config, revision=PINNED_COMMITS.get(config.model))


@DETECTORS.register("grounding-dino")
class GroundingDinoDetector(Detector):
    """Grounding DINO or MM Grounding DINO, by transformers (paper, 3.1)."""

    settings: ClassVar[frozenset[str]] = frozenset(DETECTOR_SETTINGS)

    def __init__(self, config: DetectorConfig, classes: ClassSet, *, directory: str | None = None) -> None:
        """Load the network; arguments and errors as `Detector`."""
        from wsss_ray.models.detector.network import GroundingDino  # noqa: PLC0415 - seconds, and drivers do not need it

        self.network: GroundingDino = GroundingDino(pinned(config), classes, directory=directory)
        # more images of equal size; on the CPU they gain nothing, and labels are equal byte by byte
        self.joins_units = self.network.compute.device.type == "cuda"

    def detect(self, images: Sequence[NDArray[np.uint8]], tags: Sequence[Sequence[str]]) -> list[Detections]:
        """Return the boxes of the tagged classes, as `GroundingDino.detect`."""
        return self.network.detect(images, tags)

    @classmethod
    def weights(cls, config: DetectorConfig) -> Weights:
        """Return where the weights are, as `Detector.weights`; the default hub model has a pinned commit."""
        return super().weights(pinned(config))

    @classmethod
    def prompts(
        cls, config: DetectorConfig, classes: ClassSet, tags: Sequence[Sequence[str]], *, directory: str | None = None
    ) -> list[list[str]]:
        """Return the prompts of each image, after a check of all phrases of the class set."""
        from wsss_ray.models.detector.files import load_tokenizer  # noqa: PLC0415 - only a dry run needs them
        from wsss_ray.models.detector.prompts import PromptBuilder  # noqa: PLC0415

        tokenizer = load_tokenizer(pinned(config), directory)
        builder = PromptBuilder(classes, tokenizer, max_tokens=tokenizer.model_max_length)
        return [[prompt.text for prompt in builder.build(names)] for names in tags]
