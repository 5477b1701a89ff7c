"""The labeller: images and their tags to pixel labels, by a detector, a segmenter and a fusion rule.

>>> labels = Labeller("demo")
>>> results = labels.label(["street.jpg"], [["car", "person"]])
>>> results[0].overlay()

The labelling job, the demo and the benchmarks label through this class.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsss_ray.classes import ClassSet
from wsss_ray.config import LabelConfig, LabellerConfig, builtin
from wsss_ray.config.parsing import read_files
from wsss_ray.engine.meter import Meter
from wsss_ray.errors import suggest
from wsss_ray.images.header import ImageError
from wsss_ray.images.inputs import ImageLike, read_pixels
from wsss_ray.labelling.device_thread import DeviceThread
from wsss_ray.labelling.fusing import FusedLabel, LabelRowBuilder
from wsss_ray.labelling.labelled_image import LabelledImage
from wsss_ray.labels.decoded_images import Picture
from wsss_ray.labels.weights import fetch
from wsss_ray.models.protocols import Detector, Segmenter
from wsss_ray.models.registries import DETECTORS, FUSION_RULES, SEGMENTERS
from wsss_ray.models.results import Detections, MaskCrop
from wsss_ray.models.suppression import suppress
from wsss_ray.shards.columns import LABEL_COLUMNS

_Item = tuple[NDArray[np.uint8], list[str]]
"""A decoded image and its tags."""
MASKS_BYTES = 128 * 2**20
"""Masks that wait on the host until the device is free for the next unit, at most."""


class Labeller:
    """Labels images by their tags. The models are loaded when they are first needed.

    Threads may share a labeller: one at a time uses the device, while the others decode and encode.
    """

    def __init__(
        self,
        config: LabellerConfig | str = "demo",
        *,
        classes: ClassSet | None = None,
        detector: Detector | None = None,
        segmenter: Segmenter | None = None,
    ) -> None:
        """Create a labeller.

        Args:
            config: a configuration, the name of a built-in one ("demo", "voc", "coco-paper", ...) or a YAML file.
            classes: class set; that of the configuration by default.
            detector: a loaded detector to use in place of the configured one.
            segmenter: a loaded segmenter to use in place of the configured one.

        Raises:
            ValueError: the configuration or the class set cannot be used.
        """
        self.config = _read_config([config]) if isinstance(config, str) else config
        self.classes = classes or ClassSet.load(self.config.classes, assist_words=self.config.assist_words)
        self.columns = {name: LABEL_COLUMNS.get(name)() for name in self.config.columns}
        self._rule = FUSION_RULES.get(self.config.fusion.paint)
        self._palette = self.classes.palette() if self.classes.label_dtype is np.uint8 else None
        self._device: DeviceThread[_Item, tuple[Detections, float]] = DeviceThread(self._detect_joined)
        if detector is not None:
            self.detector = detector
        if segmenter is not None:
            self.segmenter = segmenter

    @classmethod
    def from_config(cls, *configs: str, classes: ClassSet | None = None, **changes: Any) -> Labeller:
        """Return a labeller of one or more configurations; a later one overrides an earlier one.

        Args:
            configs: names of built-in configurations or paths of YAML files, as `--config` takes them. Keys that only
                the labelling job has (input, output, png, ...) are ignored.
            classes: class set; that of the configuration by default.
            changes: fields of `LabellerConfig` to replace.

        Raises:
            ValueError: a configuration cannot be used; says where and why.
        """
        config = _read_config(list(configs))
        names = [field.name for field in dataclasses.fields(LabellerConfig)]
        for name in changes.keys() - set(names):
            raise ValueError(f"LabellerConfig has no field {name!r}.{suggest(name, names)} Valid: {', '.join(names)}.")
        return cls(dataclasses.replace(config, **changes), classes=classes)

    @functools.cached_property
    def detector(self) -> Detector:
        """The detector, loaded at first use; remote weights are copied to this machine once."""
        config = self.config.detector
        kind = DETECTORS.get(config.type)
        return kind(config, self.classes, directory=fetch(kind.weights(config), self.config.storage))

    @functools.cached_property
    def segmenter(self) -> Segmenter:
        """The segmenter, loaded at first use; remote weights are copied to this machine once."""
        config = self.config.segmenter
        kind = SEGMENTERS.get(config.type)
        return kind(config, checkpoint=fetch(kind.weights(config), self.config.storage))

    def label(self, images: Sequence[ImageLike], tags: Sequence[Sequence[str]]) -> list[LabelledImage]:
        """Label images.

        Args:
            images: paths, PIL images, or (H, W, 3) uint8 RGB arrays. EXIF orientation is applied to paths.
            tags: for each image, names or aliases of the classes in it. Without tags the label is background.

        Returns:
            One result per image, in order. A file that cannot be decoded has status "failed" and its reason.

        Raises:
            TypeError: a single image instead of a list, or a text instead of a list of tags.
            ValueError: not one list of tags per image, an unknown tag, or an array of another form.
        """
        if isinstance(images, str | Path | Image.Image) or (isinstance(images, np.ndarray) and images.ndim <= 3):
            raise TypeError("images is one image: give a list of images, such as [image], and a list of tags for each.")
        if len(images) != len(tags):
            raise ValueError(f"there are {len(images)} images and {len(tags)} lists of tags: give one list per image.")
        for index, names in enumerate(tags):
            if isinstance(names, str):
                raise TypeError(f"the tags of image {index} are one text: give a list, such as [{names!r}].")
        canonical = [[self.classes.canonical(tag) for tag in names] for names in tags]
        pictures = [
            _read(image, names, index) for index, (image, names) in enumerate(zip(images, canonical, strict=True))
        ]
        fused = self.label_pictures(pictures, self.detect(pictures, Meter()), Meter())
        return [
            LabelledImage(row=label.row, image=picture.image, classes=self.classes)
            for label, picture in zip(fused, pictures, strict=True)
        ]

    def detect(self, pictures: Sequence[Picture], meter: Meter) -> list[Detections]:
        """Return the boxes of each decoded image; none where it has no pixels."""
        items = {
            index: (image, picture.row["tags"])
            for index, picture in enumerate(pictures)
            if (image := picture.image) is not None
        }
        found = [Detections.empty()] * len(pictures)
        if not items:
            return found
        if self.detector.joins_units:
            shares = self._device.join(list(items.values()))
            meter.add("detect", sum(seconds for _, seconds in shares))
            results = [detections for detections, _ in shares]
        else:
            results = self._device.run(lambda: self._detect(list(items.values()), meter))
        config = self.config.detector
        for index, detections in zip(items, results, strict=True):
            found[index] = suppress(detections, class_nms=config.class_nms, cross_class_nms=config.cross_class_nms)
        return found

    def _detect(self, items: Sequence[_Item], meter: Meter) -> list[Detections]:
        with meter("detect"):
            return self.detector.detect([image for image, _ in items], [tags for _, tags in items])

    def _detect_joined(self, items: Sequence[_Item]) -> list[tuple[Detections, float]]:
        """Return the boxes of images of several units, each with its share of the seconds."""
        meter = Meter()
        found = self._detect(items, meter)
        return [(detections, meter.seconds["detect"] / len(items)) for detections in found]

    def label_pictures(
        self, pictures: Sequence[Picture], found: Sequence[Detections], meter: Meter
    ) -> list[FusedLabel]:
        """Return the labels of decoded images and their boxes, in order: masks, joined to label maps."""
        builders = [
            LabelRowBuilder(picture, detections, self.classes, self._rule)
            for picture, detections in zip(pictures, found, strict=True)
        ]
        present = [index for index, picture in enumerate(pictures) if picture.image is not None]
        images = [image for picture in pictures if (image := picture.image) is not None]
        with meter("decode"):  # resizing needs no device: another unit may hold it
            prepared = list(self.segmenter.prepare(images, [found[index].boxes for index in present]))
        waiting: list[tuple[LabelRowBuilder, MaskCrop]] = []
        begun: set[int] = set()

        def segment() -> None:
            size = 0
            with meter("segment"):
                for position, crop in self.segmenter.masks(prepared, probabilities=self._rule.needs_probabilities):
                    if position not in begun:
                        begun.add(position)
                        meter.advance()
                    waiting.append((builders[present[position]], crop))
                    size += crop.mask.nbytes
                    if size > MASKS_BYTES:
                        _add(waiting)
                        size = 0

        if prepared:
            self._device.run(segment)
        meter.advance(len(pictures) - len(begun))
        with meter("encode"):
            _add(waiting)
            return [builder.finish(self._palette, self.columns) for builder in builders]


def _read_config(names: Sequence[str]) -> LabellerConfig:
    """Return the labelling job's configuration; a labeller reads no shards and writes no run."""
    return dataclasses.replace(read_files(LabelConfig, [builtin.find(name) for name in names]), input="", output="")


def _add(waiting: list[tuple[LabelRowBuilder, MaskCrop]]) -> None:
    """Add the masks to their images and release them."""
    for builder, crop in waiting:
        builder.add(crop)
    waiting.clear()


def _read(image: ImageLike, tags: list[str], index: int) -> Picture:
    """Return the pixels of an image with the columns of an image row that labelling needs."""
    name = Path(image).stem if isinstance(image, str | Path) else f"image-{index}"
    row: dict[str, Any] = {"image_id": name, "tags": tags}
    try:
        pixels = read_pixels(image)
    except (OSError, ImageError) as error:
        return Picture(row={**row, "height": 0, "width": 0}, error=f"decode: {error}")
    return Picture(row={**row, "height": pixels.shape[0], "width": pixels.shape[1]}, image=pixels)
