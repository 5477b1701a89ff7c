"""Protocols of a detector, a segmenter and a fusion rule. Needs no torch.

A class that derives from a protocol inherits the methods that have a body here. The driver of a job imports the class
to find its weights, so a class that needs a large package imports that package inside `__init__`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from wsss_ray.addresses import is_uri, local_path
from wsss_ray.classes import ClassSet
from wsss_ray.config.models import DetectorConfig, SegmenterConfig
from wsss_ray.models.results import Detections, MaskCrop

LabelDtype = type[np.uint8] | type[np.uint16]
LabelMap = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Location of the weights of a model: one of `files`, `uri` and `hub`."""

    files: tuple[Path, ...] = ()
    """Local files or directories; their digests enter the run's identity."""
    uri: str | None = None
    """A file or directory in a store, which the job copies to each node once."""
    copied: str | None = None
    """The URI to copy, where it is not `uri` (a file of the directory to copy)."""
    is_directory: bool = True
    """Whether the URI is a directory of files."""
    sha256: str | None = None
    """Expected SHA-256 of a single file."""
    hub: str | None = None
    """`owner/name@commit` of a hub model, which the model itself reads through the hub's cache."""


class Detector(Protocol):
    """Finds boxes of tagged classes in images (paper, 3.1)."""

    joins_units: bool = False
    """Whether the images of all units that wait for the detector are given to one call of `detect`. Where boxes depend
    on the other images of a call, even in the last bit, equal runs may then differ."""

    settings: ClassVar[frozenset[str]] = frozenset()
    """Fields among DETECTOR_SETTINGS that this detector uses; the others are not in the identity."""

    def __init__(self, config: DetectorConfig, classes: ClassSet, *, directory: str | None = None) -> None:
        """Load the model onto the configured device.

        Args:
            config: its section of the job's configuration; `config.options` holds settings of its own.
            classes: names and phrases to find.
            directory: local copy of the weights where `weights` gave a URI.

        Raises:
            ValueError: the weights, the device or the phrases cannot be used; the text says what to do.
        """
        raise NotImplementedError

    def detect(self, images: Sequence[NDArray[np.uint8]], tags: Sequence[Sequence[str]]) -> list[Detections]:
        """Return the boxes of the tagged classes, one result per image in the order given.

        Args:
            images: (H, W, 3) uint8 RGB.
            tags: class names of each image. An image without tags has no boxes.
        """
        raise NotImplementedError

    @classmethod
    def weights(cls, config: DetectorConfig) -> Weights:
        """Return where the weights are: a URI, a local directory, or a hub model at a commit.

        Raises:
            ValueError: they do not exist, or a hub model has no pinned commit.
        """
        from wsss_ray.models.hub import hub_commit, is_local, model_directory  # noqa: PLC0415 - a hub client

        if is_uri(config.model):
            return Weights(uri=config.model)
        if is_local(config):
            return Weights(files=(model_directory(config),))
        return Weights(hub=f"{config.model}@{hub_commit(config)}")

    @classmethod
    def prompts(
        cls, config: DetectorConfig, classes: ClassSet, tags: Sequence[Sequence[str]], *, directory: str | None = None
    ) -> list[list[str]]:
        """Return the texts that the detector will be given for each image, for the plan of a job.

        Raises:
            ValueError: a phrase of the class set cannot be used.
        """
        del config, directory
        return [[phrase for name in names for phrase in classes.phrases_of(classes.canonical(name))] for names in tags]


class Segmenter(Protocol):
    """Makes one mask for each box (paper, 3.2)."""

    settings: ClassVar[frozenset[str]] = frozenset()
    """Fields among SEGMENTER_SETTINGS that this segmenter uses; the others are not in the identity."""
    models: ClassVar[tuple[str, ...] | None] = None
    """Valid values of `model`; None: the segmenter checks them itself."""

    def __init__(self, config: SegmenterConfig, *, checkpoint: str | None = None) -> None:
        """Load the model onto the configured device.

        Args:
            config: its section of the job's configuration; `config.options` holds settings of its own.
            checkpoint: local path of the weights where `weights` gave a URI or a digest, which was compared.

        Raises:
            ValueError: the weights or the device cannot be used; the text says what to do.
        """
        raise NotImplementedError

    def masks(self, prepared: Iterable[Any], *, probabilities: bool = False) -> Iterator[tuple[int, MaskCrop]]:
        """Yield (index of the image, mask) for every box: by image, then in the order of the boxes.

        Args:
            prepared: what `prepare` yielded.
            probabilities: whether crops carry the masks' probabilities.
        """
        raise NotImplementedError

    def prepare(self, images: Iterable[NDArray[np.uint8]], boxes: Iterable[NDArray[np.float32]]) -> Iterator[Any]:
        """Yield (index, image, boxes) for every image that has boxes. Runs while another unit holds the device.

        Args:
            images: (H, W, 3) uint8 RGB.
            boxes: (N, 4) XYXY in pixels, for each image; N may be 0.
        """
        for index, (image, image_boxes) in enumerate(zip(images, boxes, strict=True)):
            if len(image_boxes):
                yield index, image, image_boxes

    @classmethod
    def weights(cls, config: SegmenterConfig) -> Weights:
        """Return where the weights are: `config.checkpoint`, a local path or a URI.

        Raises:
            ValueError: they do not exist.
        """
        if config.checkpoint is None:
            raise ValueError(f"segmenter.checkpoint is not set, and the segmenter '{config.type}' needs it.")
        if is_uri(config.checkpoint):
            return Weights(uri=config.checkpoint, is_directory=False, sha256=config.sha256)
        return Weights(files=(local_path(config.checkpoint),), sha256=config.sha256)

    @classmethod
    def check(cls, config: SegmenterConfig, weights: Weights) -> None:
        """Check local weights before an actor loads them.

        Raises:
            ValueError: they are damaged, or of another model.
        """


class FusionRule(Protocol):
    """Joins the masks of one image into its label map, one by one (paper, 3.3)."""

    needs_probabilities: ClassVar[bool] = False
    """Whether masks must carry their probabilities."""
    label: LabelMap
    """(H, W) class ids of the masks added so far; background where there is none."""

    def __init__(self, height: int, width: int, *, background_id: int, dtype: LabelDtype) -> None:
        """Create a label map of background; `dtype` must hold every class id."""
        raise NotImplementedError

    def add(self, crop: MaskCrop, *, class_id: int, score: float, order: int) -> None:
        """Add a mask.

        Args:
            crop: the mask, and its probabilities where `needs_probabilities` says so.
            class_id: the class of its pixels.
            score: the detector's score of its box, 0 or more.
            order: its position in the detector's query order, from 0.
        """
        raise NotImplementedError

    @classmethod
    def painting_order(cls, scores: Sequence[float], areas: Sequence[int]) -> list[int]:
        """Return the indices of an image's masks from the lowest to the topmost, for exports of separate objects.

        Exports have no probabilities. Of equals, the later query is on top.

        Args:
            scores: the detector's score of each mask, in query order.
            areas: pixels of each mask.
        """
        raise NotImplementedError
