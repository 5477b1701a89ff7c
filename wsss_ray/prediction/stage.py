"""Predict images in an actor: student, tags, DenseCRF, label map."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from wsss_ray.config import PredictConfig
from wsss_ray.engine.meter import Meter
from wsss_ray.images.label_png import encode_label
from wsss_ray.labels.decoded_images import (
    LABELLED_SCHEMA,
    Exif,
    Image,
    PictureReader,
    nullable,
    pixels_per_class,
)
from wsss_ray.models.backoff import Backoff
from wsss_ray.models.crf.crf import dense_crf
from wsss_ray.models.device import resolve_compute
from wsss_ray.prediction.resizing import enlarge_label, enlarge_scores, shrink
from wsss_ray.prediction.soft import MAPS_TYPE, encode_maps
from wsss_ray.prediction.student import load_network
from wsss_ray.shards.label_row import LabelRow

logger = logging.getLogger(__name__)

SOFT_LABELLED_SCHEMA = LABELLED_SCHEMA.append(pa.field("maps", MAPS_TYPE))
"""Rows with soft scores."""

BatchT = TypeVar("BatchT")


class PredictStage:
    """Predict the label rows of image rows."""

    def __init__(self, config: PredictConfig, student: str, exif: Exif, *, sha256: str | None = None) -> None:
        """Load the student, fetching a remote file to this node first.

        Args:
            config: how to predict.
            student: path or URI of the student's file.
            exif: the shards' orientation rule.
            sha256: digest to verify the file with.
        """
        self._config = config
        self._compute = resolve_compute(config.device, config.precision)
        self._student = load_network(student, sha256, self._compute, config.storage)
        self._spec = self._student.spec
        self._reader = PictureReader(exif=exif, decoded_bytes=config.decoded_mb * 10**6, tagged_only=config.tags_only)
        self._batches = Backoff(config.batch_size, what="images")
        self._device = threading.Lock()
        self.output_schema = SOFT_LABELLED_SCHEMA if config.soft else LABELLED_SCHEMA

    def __call__(self, rows: pa.Table, meter: Meter) -> pa.Table:
        """Return the label rows of image rows, in order."""
        results = []
        for piece in self._reader.pieces(rows, meter):
            made: dict[int, dict[str, Any]] = {}
            with meter("decode"):
                images = [
                    None if picture.image is None else shrink(picture.image, self._config.longest_side)
                    for picture in piece
                ]
            for index, probabilities in self._probabilities(images, meter):
                made[index] = self._finish(piece[index].row, piece[index].error, images[index], probabilities, meter)
            results += [made[index] for index in range(len(piece))]
        return pa.Table.from_pylist(results, schema=nullable(self.output_schema))

    def _probabilities(self, images: Sequence[Image | None], meter: Meter) -> Iterator[tuple[int, Tensor | None]]:
        """Yield the index and (C, H, W) probabilities of every image on the device; None for one without pixels."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(images):
            if image is None:
                yield index, None
            else:
                groups.setdefault(image.shape, []).append(index)
        for indices in groups.values():
            group = [image for index in indices if (image := images[index]) is not None]
            batches = self._batches.run(len(group), functools.partial(self._predict, group))
            while (batch := self._next(batches, meter)) is not None:
                part, found = batch
                yield from zip(indices[part], found, strict=True)

    def _predict(self, images: Sequence[Image], part: slice) -> list[Tensor]:
        return self._student.predict(images[part], flip=self._config.flip)

    def _next(self, batches: Iterator[BatchT], meter: Meter) -> BatchT | None:
        """Return the next batch; one thread at a time uses the device."""
        with self._device, meter("predict"), self._compute.running():
            return next(batches, None)

    def _finish(
        self,
        row: dict[str, Any],
        error: str | None,
        image: Image | None,
        probabilities: Tensor | None,
        meter: Meter,
    ) -> dict[str, Any]:
        """Return the row of an image in the output's schema."""
        if error is not None:
            return LabelRow.failure(row, error).to_row()
        channels = self._channels(row["tags"])
        if probabilities is None:
            assert self._config.tags_only, "every other image is predicted"
            probabilities = torch.ones(1, row["height"], row["width"])
        elif len(channels) < len(probabilities):
            probabilities = probabilities[channels]
            probabilities = probabilities / probabilities.sum(0).clamp(min=torch.finfo(torch.float32).tiny)
        if self._config.crf and image is not None:
            probabilities = self._refine(image, probabilities, meter)
        meter.advance()
        with meter("encode"):
            return self._labelled(row, channels, probabilities)

    def _refine(self, image: Image, probabilities: Tensor, meter: Meter) -> Tensor:
        """Run DenseCRF on the device; if its memory is too small, on the CPU, while another thread uses the device."""
        settings = self._config.crf_settings
        with self._device, meter("crf"):
            try:
                return dense_crf(image, probabilities, settings)
            except torch.OutOfMemoryError:
                logger.warning("out of device memory: DenseCRF of %d x %d pixels runs on the CPU", *image.shape[1::-1])
            torch.cuda.empty_cache()  # outside the handler, whose traceback holds the tensors of the failed attempt
            probabilities = probabilities.cpu()
        with meter("crf"):
            return dense_crf(image, probabilities, settings)

    def _channels(self, tags: Sequence[str]) -> list[int]:
        """Return the channels of the classes that an image of these tags may have."""
        names = self._spec.class_names
        if not self._config.tags_only:
            return list(range(len(names)))
        return sorted({0, *(names.index(tag, 1) for tag in tags)})

    def _labelled(self, row: dict[str, Any], channels: list[int], probabilities: Tensor) -> dict[str, Any]:
        ids = np.array(self._spec.class_ids, self._spec.label_dtype)[channels]
        size = row["height"], row["width"]
        label = enlarge_label(ids[probabilities.argmax(0).cpu().numpy()], size)
        pixels = pixels_per_class(label)
        found = {entry["class_id"] for entry in pixels}
        id_of = dict(zip(self._spec.class_names[1:], self._spec.class_ids[1:], strict=True))
        labelled = LabelRow(
            image_id=row["image_id"],
            height=row["height"],
            width=row["width"],
            label=encode_label(label, palette=self._spec.palette_bytes()),
            tags=tuple(row["tags"]),
            undetected_tags=tuple(tag for tag in row["tags"] if id_of[tag] not in found),
            status="no_tags" if self._config.tags_only and not row["tags"] else "ok",
        )
        result = {**labelled.to_row(), "pixels": pixels}
        if self._config.soft:
            kept = (probabilities.amax((1, 2)) >= self._config.soft_threshold).nonzero()[:, 0]
            scores = (probabilities[kept] * 255).round().to(torch.uint8)
            planes = (enlarge_scores(plane, size) for plane in scores.cpu().numpy())
            result["maps"] = encode_maps(ids[kept.cpu().numpy()], planes)
        return result
