"""A labelling run with every kind of row that an export may meet, and exports of it without a cluster."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from made_runs import Made, instance, write_run

from wsss_ray.classes import ClassSet
from wsss_ray.config import ExportConfig
from wsss_ray.export.job import Export
from wsss_ray.export.summary import ExportSummary
from wsss_ray.storage.storage import Storage

HEIGHT, WIDTH = 60, 90
PERSON, DOG, CAT, IGNORE = 15, 12, 8, 255


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    """(HEIGHT, WIDTH) bool mask of a rectangle, ends excluded."""
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[top:bottom, left:right] = True
    return mask


RING = box(10, 10, 30, 40) & ~box(15, 20, 25, 30)
"""500 pixels around a hole of 100."""
DOT = box(5, 7, 6, 8)
LINE = box(40, 60, 41, 62)
PIECES = box(5, 5, 15, 20) | box(5, 60, 20, 85) | box(40, 30, 55, 50)
"""Three rectangles of 150, 375 and 300 pixels."""
NOTHING = np.zeros((HEIGHT, WIDTH), np.bool_)


def label_of(*painted: tuple[int, np.ndarray]) -> np.ndarray:
    """Label map of masks, the later over the earlier."""
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    for class_id, mask in painted:
        label[mask] = class_id
    return label


def photo(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    return simplejpeg.encode_jpeg(pixels, quality=90)


FRONT, BACK, HIDDEN = box(20, 20, 50, 60), box(10, 10, 40, 40), box(25, 25, 30, 30)
MADE = [
    Made(
        image_id="ring",
        label=label_of((PERSON, RING)),
        tags=["person"],
        image=photo(0),
        instances=[instance(PERSON, RING)],
    ),
    Made(
        # Scores decide: the front person over the back one and the dog; the hidden dog and the empty mask show nothing.
        image_id="overlap.2Fx.20y",
        label=label_of((DOG, BACK | HIDDEN), (PERSON, box(0, 0, 30, 30) | FRONT)),
        tags=["person", "dog"],
        image=photo(1),
        instances=[
            instance(PERSON, FRONT, score=0.9, phrase="person", box=(19.5, 20.25, 61, 50)),
            instance(DOG, HIDDEN, score=0.5, phrase="dog"),
            instance(DOG, BACK, score=0.4, phrase="dog"),
            instance(PERSON, box(0, 0, 30, 30), score=0.6, phrase="man"),
            instance(DOG, NOTHING, score=0.45, phrase="dog"),
        ],
    ),
    Made(
        image_id="small-things_1",
        label=label_of((CAT, DOT), (DOG, LINE), (IGNORE, box(50, 0, 60, 90))),
        tags=["cat", "dog"],
        image=photo(2),
        instances=[instance(CAT, DOT), instance(DOG, LINE, score=0.7)],
    ),
    Made(
        image_id="pieces",
        label=label_of((CAT, PIECES)),
        tags=["cat"],
        image=photo(3),
        instances=[instance(CAT, PIECES, mask_score=0.625)],
    ),
    Made(image_id="failed", label=None, size=(HEIGHT, WIDTH), tags=["dog"], image=photo(4), error="segment: it broke"),
    Made(image_id="found-nothing", label=label_of(), tags=["dog"], image=photo(5)),
    Made(image_id="no-tags", label=label_of(), image=photo(6)),
    Made(
        # A label that was changed after painting: some of its cat has no mask, and some of the mask is no cat.
        image_id="changed",
        label=label_of((CAT, PIECES)),
        tags=["cat"],
        image=photo(7),
        instances=[instance(CAT, (PIECES & box(0, 0, 60, 50)) | box(5, 20, 15, 25))],
    ),
]
EXPORTED = [made for made in MADE if made.label is not None]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A labelling run on disk, and where its exports go."""

    root: Path

    def config(self, name: str, **options: Any) -> ExportConfig:
        """Configuration of an export of that name."""
        return ExportConfig(
            **{
                "labels": str(self.root / "labels"),
                "images": str(self.root / "images"),
                "output": str(self.root / name),
                "format": name,
                **options,
            }
        )

    def export(self, name: str, **options: Any) -> tuple[Path, ExportSummary]:
        """Export in this process; the output and its summary."""
        config = self.config(name, **options)
        return Path(config.output), export_here(config)


def export_here(config: ExportConfig) -> ExportSummary:
    """The job's steps without a cluster."""
    export = Export.prepare(config)
    writer = pickle.loads(pickle.dumps(export.writer))
    for slot in reversed(export.todo):
        writer(slot.unit)
    return export.finish()


def write_made(root: Path, made: list[Made], **options: Any) -> Run:
    """A run of these images, of VOC's classes where none are given."""
    classes = options.pop("classes", "voc")
    images, labels = Storage(str(root / "images")), Storage(str(root / "labels"))
    identity = {"fusion": {"paint": "score"}}
    options = {"images_per_unit": 3, "identity": identity, **options}
    write_run(images, labels, [made], classes=ClassSet.load(classes), **options)
    return Run(root=root)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
