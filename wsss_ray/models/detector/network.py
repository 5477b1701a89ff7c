"""Grounding DINO: images and their tags to boxes of classes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from wsss_ray.classes import ClassSet
from wsss_ray.config import DetectorConfig
from wsss_ray.models.backoff import Backoff
from wsss_ray.models.detector.files import load_network, load_processor
from wsss_ray.models.detector.outputs import read_outputs
from wsss_ray.models.detector.pixels import PixelTransform
from wsss_ray.models.detector.prompts import Prompt, PromptBuilder
from wsss_ray.models.device import Compute, resolve_compute, to_device
from wsss_ray.models.fast import self_check
from wsss_ray.models.fast.grounding_dino import use_fast_layers
from wsss_ray.models.fast.grounding_dino_device import use_device_layers, use_half
from wsss_ray.models.fast.ops import Sample
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
        self.network = load_network(source).to(self.compute.device)
        checks = config.kernels == "auto" and self.compute.device.type == "cuda"
        expected = self._sample_outputs() if checks else []
        prepare_network(self.network, self.compute, kernels=config.kernels)
        overflows = self.compute.tier == "float16"
        if checks and not self_check.agrees("Grounding DINO", self._sample_outputs, expected, may_overflow=overflows):
            self.network = load_network(source).to(self.compute.device)
        self.pixels = PixelTransform.of(
            processor.image_processor,
            self.network.config,
            resize=config.resize,
            backend=config.preprocessing,
        )
        self._batches = Backoff(config.batch_size, what="prompts")

    def _sample_outputs(self) -> list[torch.Tensor]:
        """Return the sorted scores and coordinates for one random image: rounding changes the order of queries."""
        device = self.compute.device
        pixels = torch.randn(1, 3, 512, 640, generator=torch.Generator().manual_seed(0))
        text = self.tokenizer("cat . dog .", return_tensors="pt")
        with self.compute.running():
            logits, boxes = run_network(
                self.network, *(part.to(device) for part in (pixels, text["input_ids"], text["attention_mask"]))
            )
        return [logits.float().amax(-1).flatten().sort().values, boxes.float().flatten().sort().values]

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
        tokens = np.full((2, len(rows), longest), self.tokenizer.pad_token_id)
        tokens[1] = 0
        for row, prompt in enumerate(prompts):
            tokens[0, row, : len(prompt.input_ids)] = prompt.input_ids
            tokens[1, row, : len(prompt.input_ids)] = 1
        with self.compute.running():
            pixels = self.pixels.apply([images[index] for index in indices], size, device)
            if len(indices) < len(rows):  # several prompts of one image
                pixels = pixels[to_device(np.array([indices.index(index) for index, _ in rows]), device)]
            input_ids, attention_mask = to_device(tokens, device)
            logits, boxes = run_network(self.network, pixels, input_ids, attention_mask)
            return read_outputs(
                logits,
                boxes,
                prompts,
                [_image_size(images[index]) for index, _ in rows],
                mode=self.config.mode,
                box_threshold=self.config.box_threshold,
            )


def prepare_network(
    network: PreTrainedModel, compute: Compute, *, kernels: Literal["auto", "stock"], sample: Sample | None = None
) -> None:
    """Replace layers of a loaded network on its device by faster ones, unless `kernels` is stock.

    Args:
        network: its weights must be final.
        compute: device and precision.
        kernels: auto or stock.
        sample: the deformable sampling of a GPU, as `use_device_layers` takes it.
    """
    if kernels == "stock":
        return
    use_fast_layers(network)
    if compute.device.type == "cuda":
        use_device_layers(network, compute.autocast_dtype or torch.float32, sample)
        if compute.autocast_dtype is not None:
            use_half(network, compute.autocast_dtype)


def run_network(
    network: PreTrainedModel, pixels: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits (B, Q, 256) and relative boxes (B, Q, 4) of the network's last layer.

    The heads of the other layers, which the network itself would compute too, serve its training only.
    """
    found = network.model(pixel_values=pixels, input_ids=input_ids, attention_mask=attention_mask)
    boxes = found.intermediate_reference_points
    before = boxes[:, -2] if boxes.shape[1] > 1 else found.init_reference_points
    hidden = found.intermediate_hidden_states[:, -1]
    logits = network.class_embed[-1](hidden, found.encoder_last_hidden_state_text, attention_mask.bool())
    moved = network.bbox_embed[-1](hidden) + torch.special.logit(before, eps=1e-5)
    return logits, moved.sigmoid()


def _image_size(image: NDArray[np.uint8]) -> tuple[int, int]:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(
            f"an image has shape {image.shape} and type {image.dtype}: the detector takes (height, width, 3) of "
            "uint8 RGB."
        )
    return image.shape[0], image.shape[1]
