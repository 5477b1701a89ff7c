"""The stages of the labelling job over the rows of one unit: detect, segment, or both in one actor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from wsss_ray.classes import ClassSet
from wsss_ray.config import LabelConfig
from wsss_ray.engine.meter import Meter
from wsss_ray.labeller import Labeller
from wsss_ray.labels.decoded_images import LABELLED_SCHEMA, Exif, Picture, PictureReader, nullable
from wsss_ray.models.results import Detections
from wsss_ray.shards.schemas import INSTANCE_TYPE, READ_COLUMNS

DETECTION_TYPE = pa.struct([INSTANCE_TYPE.field(name) for name in ("class_id", "phrase", "score", "box")])
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
"""Rows between the pools of a split placement: the encoded image with its boxes."""

assert set(READ_COLUMNS) < set(DETECTED_SCHEMA.names)


class _LabellerStage:
    """Base of the three stages: a labeller, and decoding in pieces of bounded size."""

    def __init__(self, config: LabelConfig, classes: ClassSet, exif: Exif, *, labeller: Labeller | None = None) -> None:
        """Create the labeller, unless one is given, and load the models that the stage uses."""
        self._reader = PictureReader(exif=exif, decoded_bytes=config.decoded_mb * 10**6, tagged_only=True)
        self._labeller = labeller or Labeller(config, classes=classes)
        extra = [pa.field(name, column.type) for name, column in self._labeller.columns.items()]
        self.output_schema = pa.schema([*LABELLED_SCHEMA, *extra])
        self._load()

    def _load(self) -> None:
        raise NotImplementedError

    def _label(self, piece: list[Picture], found: Sequence[Detections], meter: Meter) -> list[dict[str, Any]]:
        return [label.to_row() for label in self._labeller.label_pictures(piece, found, meter)]


class DetectStage(_LabellerStage):
    """Find boxes: image rows to rows with boxes, in the first of two pools."""

    def _load(self) -> None:
        self.output_schema = DETECTED_SCHEMA
        _ = self._labeller.detector

    def __call__(self, rows: pa.Table, meter: Meter) -> pa.Table:
        """Find the boxes of the tagged classes."""
        results = []
        for piece in self._reader.pieces(rows, meter):
            for picture, detections in zip(piece, self._labeller.detect(piece, meter), strict=True):
                boxes = None if picture.error else _detections_to_list(detections)
                results.append({**picture.row, "error": picture.error, "detections": boxes})
        return pa.Table.from_pylist(results, schema=DETECTED_SCHEMA)


class SegmentStage(_LabellerStage):
    """Make masks and labels: rows with boxes to label rows, in the second of two pools."""

    def _load(self) -> None:
        _ = self._labeller.segmenter

    def __call__(self, rows: pa.Table, meter: Meter) -> pa.Table:
        """Make masks of the boxes and join them."""
        results = []
        for piece in self._reader.pieces(rows, meter):
            found = [_detections_from_list(picture.row["detections"]) for picture in piece]
            results += self._label(piece, found, meter)
        return pa.Table.from_pylist(results, schema=nullable(self.output_schema))


class LabelStage(_LabellerStage):
    """Label images with both models in one actor: image rows to label rows. Images are decoded once."""

    def _load(self) -> None:
        _ = self._labeller.detector, self._labeller.segmenter

    def __call__(self, rows: pa.Table, meter: Meter) -> pa.Table:
        """Find boxes, make masks and join them to labels."""
        results = []
        for piece in self._reader.pieces(rows, meter):
            results += self._label(piece, self._labeller.detect(piece, meter), meter)
        return pa.Table.from_pylist(results, schema=nullable(self.output_schema))


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
