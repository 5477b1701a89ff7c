"""The labelling job's stages: detect, segment, or both in one actor, over the rows of one unit."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from wsss_ray.classes import ClassSet
from wsss_ray.config import LabelConfig
from wsss_ray.engine.stage import Meter
from wsss_ray.images.label_png import encode_label
from wsss_ray.images.rle import encode_crop
from wsss_ray.labels.decoded_images import (
    LABELLED_SCHEMA,
    Exif,
    Picture,
    PictureReader,
    count_pixels,
    label_fields,
    nullable,
)
from wsss_ray.models.fusion import Canvas
from wsss_ray.models.results import Detections, MaskCrop
from wsss_ray.shards.schemas import READ_COLUMNS
from wsss_ray.storage.weights import fetch_directory, fetch_file, is_uri

if TYPE_CHECKING:  # each pool imports the libraries of its own network alone
    from wsss_ray.models.detector.detector import Detector
    from wsss_ray.models.sam.segmenter import Segmenter

DETECTION_TYPE = pa.struct(
    [
        ("class_id", pa.int32()),
        ("phrase", pa.string()),
        ("score", pa.float32()),
        ("box", pa.list_(pa.float32(), 4)),
    ]
)
DETECTED_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("image", pa.large_binary()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("tags", pa.list_(pa.string())),
        ("error", pa.string()),
        ("detections", pa.list_(DETECTION_TYPE)),
    ]
)
"""Rows between the pools of a split placement: the encoded image goes on, with its boxes."""

assert set(READ_COLUMNS) < set(DETECTED_SCHEMA.names)


def load_detector(config: LabelConfig, classes: ClassSet) -> Detector:
    """Load the detector, fetching a remote checkpoint to this node first."""
    from wsss_ray.models.detector.detector import Detector  # noqa: PLC0415 - seconds that a pool of segmenters saves

    model = config.detector.model
    directory = str(fetch_directory(model, config=config.storage)) if is_uri(model) else None
    return Detector(config.detector, classes, directory=directory)


def load_segmenter(config: LabelConfig) -> Segmenter:
    """Load the segmenter, fetching a remote checkpoint to this node first."""
    from wsss_ray.models.sam.segmenter import Segmenter  # noqa: PLC0415 - likewise

    settings = config.segmenter
    path = None
    if settings.checkpoint is not None and settings.model == "tiny":  # a directory: the weights and their shape
        path = str(fetch_directory(settings.checkpoint.removesuffix("/model.safetensors"), config=config.storage))
    elif settings.checkpoint is not None:
        path = str(fetch_file(settings.checkpoint, sha256=settings.sha256, config=config.storage))
    return Segmenter(settings, checkpoint=path)


MASKS_BYTES = 128 * 2**20
"""Masks that wait to be joined to their images until the device is free for the next unit, at most."""


class Labeller:
    """Joins the masks of an image to a label row, as the masks come."""

    def __init__(self, picture: Picture, detections: Detections, classes: ClassSet, config: LabelConfig) -> None:
        """Start with the boxes and no mask."""
        row = picture.row
        self._picture = picture
        self._detections = detections
        self._classes = classes
        self._masks: list[dict[str, Any]] = []
        self._canvas = Canvas(
            row["height"],
            row["width"],
            background_id=classes.background_id,
            dtype=classes.label_dtype,
            paint=config.fusion.paint,
        )

    def add(self, crop: MaskCrop) -> None:
        """Join the mask of the next box."""
        index, row = crop.box_index, self._picture.row
        assert index == len(self._masks), "masks come in the order of the boxes"
        detections = self._detections
        class_id, score = int(detections.class_ids[index]), float(detections.scores[index])
        self._canvas.add(crop, class_id=class_id, score=score, order=index)
        size = {"height": row["height"], "width": row["width"]}
        self._masks.append(
            {
                "class_id": class_id,
                "phrase": detections.phrases[index],
                "score": score,
                "box": detections.boxes[index].tolist(),
                "mask_score": crop.score,
                "mask": {**size, "counts": encode_crop(crop.mask, top=crop.top, left=crop.left, **size)},
            }
        )

    def finish(self, palette: bytes | None) -> dict[str, Any]:
        """The label row."""
        row = self._picture.row
        result = label_fields(row)
        if self._picture.error is not None:
            return {**result, "error": self._picture.error}
        assert len(self._masks) == len(self._detections), "every box has its mask"
        label = self._canvas.label
        ids = {mask["class_id"] for mask in self._masks}
        found = {self._classes.by_id[class_id].name for class_id in ids}
        return {
            **result,
            "label": encode_label(label, palette=palette),
            "instances": self._masks,
            "undetected_tags": [tag for tag in row["tags"] if tag not in found],
            "status": "no_tags" if not row["tags"] else "ok" if self._masks else "no_detections",
            "pixels": count_pixels(label, among={self._classes.background_id, *ids}),
        }


class DetectStage:
    """Rows to rows with boxes; the first of two pools."""

    output_schema = DETECTED_SCHEMA

    def __init__(self, config: LabelConfig, classes: ClassSet, exif: Exif) -> None:
        """Load the detector."""
        self._reader = PictureReader(exif=exif, decoded_bytes=config.decoded_mb * 10**6, tagged_only=True)
        self._detector = load_detector(config, classes)
        self._device = threading.Lock()

    def __call__(self, rows: pa.Table, meter: Meter) -> pa.Table:
        """Find the boxes of the tagged classes."""
        results = []
        for piece in self._reader.pieces(rows, meter):
            with self._device, meter("detect"):
                found = detect(self._detector, piece)
            for picture, detections in zip(piece, found, strict=True):
                boxes = None if picture.error else _detections_to_list(detections)
                results.append({**picture.row, "error": picture.error, "detections": boxes})
        return pa.Table.from_pylist(results, schema=DETECTED_SCHEMA)


class SegmentStage:
    """Rows with boxes to label rows; the second of two pools."""

    output_schema = LABELLED_SCHEMA

    def __init__(self, config: LabelConfig, classes: ClassSet, exif: Exif) -> None:
        """Load the segmenter."""
        self._reader = PictureReader(exif=exif, decoded_bytes=config.decoded_mb * 10**6, tagged_only=True)
        self._segmenter = load_segmenter(config)
        self._device = threading.Lock()
        self._label = functools.partial(label_pictures, config=config, classes=classes)

    def __call__(self, rows: pa.Table, meter: Meter) -> pa.Table:
        """Make masks of the boxes and join them."""
        results = []
        for piece in self._reader.pieces(rows, meter):
            found = [_detections_from_list(picture.row["detections"]) for picture in piece]
            results += self._label(piece, found, self._segmenter, self._device, meter)
        return pa.Table.from_pylist(results, schema=nullable(LABELLED_SCHEMA))


class LabelStage:
    """Rows to label rows with both models in one actor: one decode, and no ratio of pools to tune."""

    output_schema = LABELLED_SCHEMA

    def __init__(self, config: LabelConfig, classes: ClassSet, exif: Exif) -> None:
        """Load both models."""
        self._reader = PictureReader(exif=exif, decoded_bytes=config.decoded_mb * 10**6, tagged_only=True)
        self._detector = load_detector(config, classes)
        self._segmenter = load_segmenter(config)
        self._device = threading.Lock()
        self._label = functools.partial(label_pictures, config=config, classes=classes)

    def __call__(self, rows: pa.Table, meter: Meter) -> pa.Table:
        """Boxes, masks, labels."""
        results = []
        for piece in self._reader.pieces(rows, meter):
            with self._device, meter("detect"):
                found = detect(self._detector, piece)
            results += self._label(piece, found, self._segmenter, self._device, meter)
        return pa.Table.from_pylist(results, schema=nullable(LABELLED_SCHEMA))


def detect(detector: Detector, pictures: Sequence[Picture]) -> list[Detections]:
    """Boxes of each picture; none where it has no image."""
    there = [index for index, picture in enumerate(pictures) if picture.image is not None]
    images = [image for picture in pictures if (image := picture.image) is not None]
    found = [Detections.empty()] * len(pictures)
    for index, detections in zip(there, detector.detect(images, [pictures[i].row["tags"] for i in there]), strict=True):
        found[index] = detections
    return found


def label_pictures(
    pictures: Sequence[Picture],
    found: Sequence[Detections],
    segmenter: Segmenter,
    device: threading.Lock,
    meter: Meter,
    *,
    config: LabelConfig,
    classes: ClassSet,
) -> list[dict[str, Any]]:
    """Label rows of pictures and their boxes, in order."""
    palette = classes.palette() if classes.label_dtype is np.uint8 else None
    labellers = [Labeller(picture, boxes, classes, config) for picture, boxes in zip(pictures, found, strict=True)]
    there = [index for index, picture in enumerate(pictures) if picture.image is not None]
    images = [image for picture in pictures if (image := picture.image) is not None]
    with meter("decode"):  # resizing: while another unit computes
        prepared = list(segmenter.prepare(images, [found[index].boxes for index in there]))
    waiting: list[tuple[Labeller, MaskCrop]] = []
    begun: set[int] = set()
    size = 0
    with device, meter("segment"):
        for position, crop in segmenter.masks(prepared, probabilities=config.fusion.paint == "prob"):
            if position not in begun:
                begun.add(position)
                meter.advance()
            waiting.append((labellers[there[position]], crop))
            size += crop.mask.nbytes
            if size > MASKS_BYTES:
                _join(waiting)
                size = 0
    meter.advance(len(pictures) - len(begun))
    with meter("encode"):
        _join(waiting)
        return [labeller.finish(palette) for labeller in labellers]


def _join(waiting: list[tuple[Labeller, MaskCrop]]) -> None:
    """Add the masks to their images, and let go of them."""
    for labeller, crop in waiting:
        labeller.add(crop)
    waiting.clear()


def _detections_to_list(detections: Detections) -> list[dict[str, Any]]:
    return [
        {
            "class_id": int(detections.class_ids[index]),
            "phrase": detections.phrases[index],
            "score": float(detections.scores[index]),
            "box": detections.boxes[index].tolist(),
        }
        for index in range(len(detections))
    ]


def _detections_from_list(entries: Sequence[dict[str, Any]] | None) -> Detections:
    if not entries:
        return Detections.empty()
    return Detections(
        boxes=np.array([entry["box"] for entry in entries], np.float32),
        scores=np.array([entry["score"] for entry in entries], np.float32),
        class_ids=np.array([entry["class_id"] for entry in entries], np.int32),
        phrases=tuple(entry["phrase"] for entry in entries),
    )
