"""OWLv2 as a detector of the labelling job: one file beside the package, nothing in the package changes.

    wsss-ray label --config voc --detector.type owlv2_detector:Owlv2Detector \\
        --detector.model google/owlv2-base-patch16-ensemble --detector.revision COMMIT --input SHARDS --output RUN

Put the file's folder on PYTHONPATH (with `ray job submit`, into the working directory), or install it as a package with
an entry point in the group `wsss_ray.detectors`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Owlv2ForObjectDetection, Owlv2Processor

from wsss_ray.classes import ClassSet
from wsss_ray.config import DetectorConfig
from wsss_ray.models.device import resolve_compute
from wsss_ray.models.hub import model_directory
from wsss_ray.models.protocols import Detector
from wsss_ray.models.results import Detections

TEMPLATE = "a photo of a {}"
"""The text that OWLv2 was trained with; `options: {template: ...}` sets another."""


class Owlv2Detector(Detector):
    """OWLv2 by transformers: every phrase of the image's tags is one text query."""

    def __init__(self, config: DetectorConfig, classes: ClassSet, *, directory: str | None = None) -> None:
        """Load network and processor; errors as `Detector`."""
        source = model_directory(config, directory)
        self._classes = classes
        self._threshold = config.box_threshold
        self._template = str(config.options.get("template", TEMPLATE))
        self._compute = resolve_compute(config.device, config.precision)
        self._processor = Owlv2Processor.from_pretrained(source, local_files_only=True)
        network = Owlv2ForObjectDetection.from_pretrained(source, local_files_only=True, use_safetensors=True)
        self._network = network.eval().to(self._compute.device)

    def detect(self, images: Sequence[NDArray[np.uint8]], tags: Sequence[Sequence[str]]) -> list[Detections]:
        """Return the boxes of the tagged classes, one result per image."""
        return [self._detect(image, names) for image, names in zip(images, tags, strict=True)]

    def _detect(self, image: NDArray[np.uint8], names: Sequence[str]) -> Detections:
        queries = [(name, phrase) for name in names for phrase in self._classes.phrases_of(name)]
        if not queries:
            return Detections.empty()
        texts = [[self._template.format(phrase) for _, phrase in queries]]
        inputs = self._processor(text=texts, images=image, truncation=True, return_tensors="pt").to(
            self._compute.device
        )
        with self._compute.running():
            outputs = self._network(**inputs.to(self._compute.device))
            (found,) = self._processor.post_process_grounded_object_detection(
                outputs, threshold=self._threshold, target_sizes=torch.tensor([image.shape[:2]])
            )
        chosen = found["labels"].tolist()
        return Detections(
            boxes=found["boxes"].float().cpu().numpy().reshape(-1, 4),
            scores=found["scores"].float().cpu().numpy(),
            class_ids=np.array([self._classes.by_name[queries[index][0]].id for index in chosen], np.int32),
            phrases=tuple(queries[index][1] for index in chosen),
        )
