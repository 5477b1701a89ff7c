"""Grounding DINO: images and their tags to boxes of classes."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from wsss_ray.classes import ClassSet
from wsss_ray.config import DetectorConfig
from wsss_ray.models.backoff import Backoff
from wsss_ray.models.detector.files import load_network, load_processor
from wsss_ray.models.detector.outputs import read_outputs
from wsss_ray.models.detector.pixels import PixelTransform
from wsss_ray.models.detector.prompts import Prompt, PromptBuilder
from wsss_ray.models.device import resolve_compute
from wsss_ray.models.fast.grounding_dino import use_fast_layers
from wsss_ray.models.hub import model_directory
from wsss_ray.models.results import Detections
from wsss_ray.models.suppression import concatenate


class GroundingDino:
    """A loaded detector of the Grounding DINO family.

    >>> detector = GroundingDino(DetectorConfig(model="demo"), ClassSet.load("demo"))
    >>> detections = detector.detect([image], [["cat", "potted plant"]])

    Use one object per thread. Images of equal network size run together and are never padded: padding changes the
    network's normalization statistics, and so boxes.
    """

    def __init__(self, config: DetectorConfig, class_set: ClassSet, *, directory: str | None = None) -> None:
        """Load the network.

        Args:
            config: the detector's section of a configuration.
            class_set: names and phrases to find.
            directory: local copy of the files of a model that is given as a URI.

        Raises:
            ValueError: the weights are absent, incomplete or not pinned, the device or precision is not available, or
                the tokenizer cannot read a phrase of the class set.
        """
        self.config = config
        self.compute = resolve_compute(config.device, config.precision)
        source = model_directory(config, directory)
        processor = load_processor(source)
        self.tokenizer = processor.tokenizer
        self._prompts = PromptBuilder(class_set, self.tokenizer, max_tokens=self.tokenizer.model_max_length)
        network = load_network(source)
        if config.kernels == "auto":
            use_fast_layers(network)
        self.network = network.to(self.compute.device)
        self.pixels = PixelTransform.of(
            processor.image_processor,
            self.network.config,
            resize=config.resize,
            backend=config.preprocessing,
        )
        self._batches = Backoff(config.batch_size, what="prompts")

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of the network's input for an image of this size. Equal sizes run together."""
        return self.pixels.network_size(height, width)

    def detect(self, images: Sequence[NDArray[np.uint8]], tags: Sequence[Sequence[str]]) -> list[Detections]:
        """Return the boxes of the tagged classes, one result per image in the order given.

        Boxes are in the order of prompts and, within a prompt, of queries.

        Args:
            images: (H, W, 3) uint8 RGB.
            tags: class names or aliases of each image. An image without tags has no boxes and is not run.

        Raises:
            ValueError: an image has another form, or the numbers of images and lists of tags differ.
            UnknownTagError: a tag is not in the class set.
            torch.OutOfMemoryError: a single prompt is too large for the device.
        """
        if len(images) != len(tags):
            raise ValueError(f"there are {len(images)} images and {len(tags)} lists of tags: give one list per image.")
        groups: dict[tuple[int, int], list[tuple[int, Prompt]]] = {}
        for index, (image, image_tags) in enumerate(zip(images, tags, strict=True)):
            size = self.network_size(*_image_size(image))
            groups.setdefault(size, []).extend((index, prompt) for prompt in self._prompts.build(image_tags))
        parts: list[list[Detections]] = [[] for _ in images]
        for size, rows in groups.items():
            for piece, results in self._batches.run(len(rows), functools.partial(self._run, images, rows, size)):
                for (index, _), found in zip(rows[piece], results, strict=True):
                    parts[index].append(found)
        return [concatenate(found) for found in parts]

    def _run(
        self,
        images: Sequence[NDArray[np.uint8]],
        rows: Sequence[tuple[int, Prompt]],
        size: tuple[int, int],
        piece: slice,
    ) -> list[Detections]:
        """Return the boxes of a piece of rows, by one forward pass.

        Args:
            images: all images.
            rows: (index into `images`, prompt), all of network size `size`.
            size: height and width of the network's input.
            piece: the rows to run.
        """
        rows = rows[piece]
        device = self.compute.device
        indices = list(dict.fromkeys(index for index, _ in rows))
        prompts = [prompt for _, prompt in rows]
        longest = max(len(prompt.input_ids) for prompt in prompts)
        input_ids = torch.full((len(rows), longest), self.tokenizer.pad_token_id)
        attention_mask = torch.zeros_like(input_ids)
        for row, prompt in enumerate(prompts):
            input_ids[row, : len(prompt.input_ids)] = torch.tensor(prompt.input_ids)
            attention_mask[row, : len(prompt.input_ids)] = 1
        with self.compute.running():
            pixels = self.pixels.apply([images[index] for index in indices], size, device)
            if len(indices) < len(rows):  # several prompts of one image
                pixels = pixels[[indices.index(index) for index, _ in rows]]
            outputs = self.network(
                pixel_values=pixels, input_ids=input_ids.to(device), attention_mask=attention_mask.to(device)
            )
            return read_outputs(
                outputs.logits,
                outputs.pred_boxes,
                prompts,
                [_image_size(images[index]) for index, _ in rows],
                mode=self.config.mode,
                box_threshold=self.config.box_threshold,
            )


def _image_size(image: NDArray[np.uint8]) -> tuple[int, int]:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(
            f"an image has shape {image.shape} and type {image.dtype}: the detector takes (height, width, 3) of "
            "uint8 RGB."
        )
    return image.shape[0], image.shape[1]
