"""The segmenter: boxes of images to instance masks, by SAM (paper, 3.2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsss_ray.config import SegmenterConfig
from wsss_ray.errors import CheckpointError
from wsss_ray.models.backoff import Backoff
from wsss_ray.models.device import Compute, resolve_compute, to_device
from wsss_ray.models.fast.sam_decoder import BoxDecoder
from wsss_ray.models.results import MaskCrop
from wsss_ray.models.sam.decoder import StockDecoder
from wsss_ray.models.sam.encoder import ImageEncoder, resize_longest_side
from wsss_ray.models.sam.loading import load_sam
from wsss_ray.models.sam.masks import OriginalSize
from wsss_ray.models.sam.packed_masks import PackedMasks
from wsss_ray.models.sam.weights import checkpoint_path, existing_checkpoint

BOXES_PER_CHUNK = {"cpu": 1, "cuda": 64}
"""Boxes decoded at once by default. On the CPU more boxes are no faster, need more memory and change the last bits."""
PACKED_BYTES = 2**28
"""Masks of a group that the host reads at once, at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompted:
    """An image with boxes, ready for the network; `SamBoxes.prepare` makes it."""

    index: int
    """Index among the images that were given to `prepare`."""
    pixels: NDArray[np.uint8]
    """(h, w, 3) RGB at the network's size."""
    boxes: NDArray[np.float32]
    """(n, 4) XYXY in pixels of the network's input."""
    original_size: OriginalSize
    """Resizes mask logits to the original image."""


class SamBoxes:
    """SAM with box prompts, one mask per box (`multimask_output=False`, as published).

    Masks equal those of `SamPredictor.set_image` and `predict_torch`, image by image, but for rounding. The image
    encoder runs in the configured precision, prompt encoder and mask decoder always in float32. On the CPU the result
    does not depend on `batch_size`, bit by bit. Use one SamBoxes per thread.
    """

    def __init__(self, config: SegmenterConfig, *, checkpoint: str | Path | None = None) -> None:
        """Load the model.

        Args:
            config: the segmenter's section of a configuration.
            checkpoint: local file of the configured weights, already checked against `config.sha256`. Unset: that of
                `config.checkpoint`.

        Raises:
            ValueError: the weights are missing, damaged or of another model, or the device or precision is not
                available.
        """
        self._compute = resolve_compute(config.device, config.precision)
        self._strict = Compute(device=self._compute.device, tier="float32")
        if checkpoint is not None:
            path = existing_checkpoint(config.model, Path(checkpoint))
        elif config.sha256 is not None:
            raise CheckpointError("segmenter.sha256 is set: check the file and give its path (a Labeller does both).")
        else:
            path = checkpoint_path(config)
        sam = load_sam(config.model, path, digest_given=config.sha256 is not None).to(self._compute.device)
        self._stock = config.kernels == "stock"
        with self._strict.running():
            self._decoder = StockDecoder(sam) if self._stock else BoxDecoder(sam)
        self._low_side: int = sam.prompt_encoder.mask_input_size[0]
        self._encoder = ImageEncoder(sam, self._compute, kernels=config.kernels, compile_mode=config.compile)
        self._images_per_group = config.batch_size
        self._resize_by = config.preprocessing
        self._image_pieces = Backoff(config.batch_size, what="images")
        chunk = config.boxes_per_chunk or BOXES_PER_CHUNK[self._compute.device.type]
        self._box_pieces = Backoff(chunk, what="boxes")

    def prepare(self, images: Iterable[NDArray[np.uint8]], boxes: Iterable[NDArray[np.float32]]) -> Iterator[Prompted]:
        """Yield the checked and resized images that have boxes; those without are not encoded.

        This uses neither the network nor the device, so a thread can prepare images while another one makes masks.

        Args:
            images: (H, W, 3) uint8 RGB.
            boxes: for each image (N, 4) XYXY in pixels of it; N may be 0. Boxes that reach outside the image or have
                swapped corners are allowed, as in SAM.

        Raises:
            ValueError: the numbers of images and box arrays differ, an image or a box array has another form, or a box
                is not finite.
        """
        for index, (image, image_boxes) in enumerate(zip(images, boxes, strict=True)):
            checked = _check_boxes(index, image_boxes)
            _check_image(index, image)
            if len(checked):
                yield self._prepare(index, image, checked)

    def masks(self, prepared: Iterable[Prompted], *, probabilities: bool = False) -> Iterator[tuple[int, MaskCrop]]:
        """Yield (index of the image, mask) for every box: by image, then in the order of the boxes.

        Args:
            prepared: what `prepare` yielded; `batch_size` images are read ahead.
            probabilities: whether crops carry the masks' probabilities.

        Raises:
            torch.OutOfMemoryError: a single image or box is too large for the device.
        """
        sent: PackedMasks | None = None
        for group in _groups(prepared, self._images_per_group):
            if probabilities or not group[0].original_size.whole:
                yield from self._segment_group(group, probabilities=probabilities)
                continue
            for packed in self._pack_group(group):
                packed.send()
                if sent is not None:  # the device has the next group's work by now
                    yield from sent.read()
                sent = packed
        if sent is not None:
            yield from sent.read()

    def _prepare(self, index: int, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> Prompted:
        pixels = resize_longest_side(image, self._encoder.side, self._resize_by)
        (height, width), resized = image.shape[:2], (pixels.shape[0], pixels.shape[1])
        scale = np.array([resized[1] / width, resized[0] / height] * 2, np.float32)
        original_size = OriginalSize(
            low_side=self._low_side,
            network_side=self._encoder.side,
            resized=resized,
            original=(height, width),
            compute=self._strict,
            whole=self._stock,
        )
        return Prompted(index=index, pixels=pixels, boxes=boxes * scale, original_size=original_size)

    def _segment_group(self, group: list[Prompted], *, probabilities: bool) -> Iterator[tuple[int, MaskCrop]]:
        """Yield the masks of a group, each computed when it is needed."""
        for picture, boxes, logits, scores in self._decoded(group):
            crops = picture.original_size.crops_of(
                logits, boxes=boxes, scores=scores.tolist(), probabilities=probabilities
            )
            yield from ((picture.index, crop) for crop in crops)

    def _pack_group(self, group: list[Prompted]) -> Iterator[PackedMasks]:
        """Yield the masks of a group on the device: all of them, unless they are larger than PACKED_BYTES."""
        packed = PackedMasks()
        with self._strict.running():
            for picture, boxes, logits, scores in self._decoded(group):
                packed.add(picture.original_size, logits, scores, image=picture.index, boxes=boxes)
                if packed.bytes > PACKED_BYTES:
                    yield packed
                    packed = PackedMasks()
        if packed.bytes:
            yield packed

    def _decoded(self, group: list[Prompted]) -> Iterator[tuple[Prompted, list[int], Tensor, Tensor]]:
        """Yield, image by image and chunk by chunk: image, indices of its boxes, mask logits and predicted IoUs."""
        counts = [len(picture.boxes) for picture in group]
        slot_of_box = np.repeat(np.arange(len(group)), counts)
        index_of_box = np.concatenate([np.arange(count) for count in counts])
        boxes = np.concatenate([picture.boxes for picture in group])
        device = self._compute.device
        slots_there, boxes_there = to_device(slot_of_box, device), to_device(boxes, device)

        def encode(piece: slice) -> Tensor:
            return self._encoder.encode([picture.pixels for picture in group[piece]])

        def decode(piece: slice) -> tuple[Tensor, Tensor]:
            with self._strict.running():
                return self._decoder.decode(tokens, slots_there[piece], boxes_there[piece])

        features = torch.cat([part for _, part in self._image_pieces.run(len(group), encode)])
        with self._strict.running():
            tokens = self._decoder.tokens_of_images(features)
        for piece, (logits, scores) in self._box_pieces.run(len(boxes), decode):
            chunk_slots = slot_of_box[piece]
            for slot in np.unique(chunk_slots):
                first, stop = np.searchsorted(chunk_slots, [slot, slot + 1])
                indices = index_of_box[piece][first:stop].tolist()
                yield group[slot], indices, logits[first:stop], scores[first:stop]


def _groups(prepared: Iterable[Prompted], size: int) -> Iterator[list[Prompted]]:
    group: list[Prompted] = []
    for picture in prepared:
        group.append(picture)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _check_image(index: int, image: NDArray[np.uint8]) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f"image {index} is {image.dtype} of shape {image.shape}: the segmenter takes uint8 RGB of shape (H, W, 3)."
        )


def _check_boxes(index: int, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    checked = np.asarray(boxes, np.float32)
    if checked.shape == (0,):  # np.asarray of an empty list
        return checked.reshape(0, 4)
    if checked.ndim != 2 or checked.shape[1] != 4:
        raise ValueError(
            f"boxes of image {index} have shape {checked.shape}: the segmenter takes (N, 4), XYXY in pixels."
        )
    broken = np.flatnonzero(~np.isfinite(checked).all(1))
    if len(broken):
        raise ValueError(f"box {broken[0]} of image {index} is {checked[broken[0]].tolist()}: boxes must be finite.")
    return checked
