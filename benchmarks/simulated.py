"""A labelling run whose models sleep: everything except the networks is real, from JPEGs to label files.

For `cluster.py` (many fake GPUs on few cores) and `pipeline.py` (what the CPU does for an image outside the models).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from wsss_ray.classes import ClassSet
from wsss_ray.config import LabelConfig, parse
from wsss_ray.images.decoding import read_size
from wsss_ray.labeller import Labeller
from wsss_ray.labelling.stages import DetectStage, LabelStage, SegmentStage
from wsss_ray.labels.decoded_images import Exif
from wsss_ray.models.results import Detections, MaskCrop
from wsss_ray.shards.image_encoding import encode_image_shard, shard_name
from wsss_ray.shards.schemas import IMAGE_SCHEMA

CLASSES = "coco"
UNIT = 32
BOXES = 8
"""Boxes per image: COCO has seven objects on average."""
TAGS = ("person", "dog", "cup")
SIDES = (480, 640)


@dataclass(frozen=True, kw_only=True)
class Sleeping:
    """Seconds of the networks per image."""

    detect: float
    segment: float


def write_shards(
    folder: Path,
    photos: Iterable[Path],
    *,
    images: int,
    links: int = 1,
    class_set: str = CLASSES,
    tags: Sequence[str] = TAGS,
) -> None:
    """Write shards of `images` rows in total. With `links` the first ones are links to one file, to save disk space.

    Photos (JPEG of 640 x 480, or what there is) are repeated as often as is needed.
    """
    encoded = [path.read_bytes() for path in photos]
    assert encoded, "no photos: give --photos a folder of JPEGs"
    sizes = [read_size(data, exif="ignore") for data in encoded]
    classes = ClassSet.load(class_set)
    each = images // links // UNIT * UNIT
    rest = images - each * links
    total = links + (rest > 0)

    def groups(count: int) -> Iterator[pa.Table]:
        for start in range(0, count, UNIT):
            chosen = [index % len(encoded) for index in range(start, min(start + UNIT, count))]
            rows = [
                {
                    "image_id": f"{start + place:06d}",
                    "source": f"{start + place}.jpg",
                    "image": encoded[index],
                    "height": sizes[index][0],
                    "width": sizes[index][1],
                    "tags": tags,
                    "truth": None,
                }
                for place, index in enumerate(chosen)
            ]
            yield pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA)

    def write(number: int, count: int) -> Path:
        path = folder / shard_name(number, total)
        digest = classes.label_space_digest
        path.write_bytes(encode_image_shard(groups(count), exif="ignore", label_space=digest, classes=class_set))
        return path

    folder.mkdir(parents=True, exist_ok=True)
    first = write(0, each)
    for number in range(1, links):
        os.link(first, folder / shard_name(number, total))
    if rest:
        write(links, rest)


def find_photos(folder: Path | None, work: Path) -> list[Path]:
    """Return JPEGs of a common size in COCO from a folder, or write noisy patches of that size.

    The made ones have 173 KB each; those of COCO's train2014 have 163 KB on average (13.5 GB, 82,783 photos).
    """
    if folder is not None:
        found = sorted(folder.rglob("*.jpg"))
        if not found:
            raise SystemExit(f"error: no JPEG (*.jpg) in {folder} or below; without --photos they are made")
        return [path for path in found if read_size(path.read_bytes(), exif="ignore") == SIDES] or found
    import simplejpeg  # noqa: PLC0415

    work.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    paths = []
    for index in range(16):
        coarse = generator.integers(0, 256, (61, 81, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)[:480, :640]
        noise = generator.integers(0, 28, (480, 640, 3), dtype=np.uint8)
        path = work / f"{index}.jpg"
        path.write_bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(coarse // 2 + noise), quality=90))
        paths.append(path)
    return paths


def settings() -> LabelConfig:
    """Return the configuration of the simulated run."""
    return parse(LabelConfig, ["--input", "-", "--output", "-", "--classes", CLASSES])


class SleepingModels:
    """A detector and a segmenter that sleep as long as the networks take; all images get the same masks."""

    joins_units = False

    def __init__(self, times: Sleeping, *, exact: bool) -> None:
        """Create the models; `exact`: resize with Pillow, as the published settings do."""
        self._times, self._exact = times, exact
        self._detections, self._crops = _objects()

    def detect(self, images: Sequence[np.ndarray], tags: Sequence[Sequence[str]]) -> list[Detections]:
        """Return the same boxes for each image."""
        del tags
        time.sleep(self._times.detect * len(images))
        return [self._detections] * len(images)

    def prepare(self, images: list[np.ndarray], boxes: list[np.ndarray]) -> list[int]:
        """Resize the images, as SAM's `prepare` does."""
        assert len(images) == len(boxes)
        for image in images:
            _resize(image, exact=self._exact)
        return list(range(len(images)))

    def masks(self, prepared: list[int], *, probabilities: bool) -> Iterator[tuple[int, MaskCrop]]:
        """Yield the same masks for each image."""
        assert not probabilities
        time.sleep(self._times.segment * len(prepared))
        for index in prepared:
            for crop in self._crops:
                yield index, crop


def _resize(image: np.ndarray, *, exact: bool) -> np.ndarray:
    """Resize as `resize_longest_side` of SAM's encoder, whose import would dominate a simulated actor."""
    height, width = (round(side * 1024 / max(image.shape[:2])) for side in image.shape[:2])
    if exact:
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    pixels = torch.from_numpy(image)[None].permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def _objects() -> tuple[Detections, list[MaskCrop]]:
    """Return boxes, and ellipses of all sizes with rough edges."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[: SIDES[0], : SIDES[1]]
    crops, boxes = [], []
    for index in range(BOXES):
        centre, radii = SIDES * (0.2 + 0.6 * generator.random(2)), 20 + generator.random(2) * 100
        distance = ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2
        mask = distance + generator.normal(0, 0.02, rows.shape) < 1
        lines, places = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        top, left, bottom, right = lines[0], places[0], lines[-1] + 1, places[-1] + 1
        crops.append(
            MaskCrop(
                box_index=index,
                top=int(top),
                left=int(left),
                mask=mask[top:bottom, left:right].copy(),
                score=0.9,
                probability=None,
            )
        )
        boxes.append([left, top, right, bottom])
    classes = ClassSet.load(CLASSES)
    ids = [classes.by_name[TAGS[index % len(TAGS)]].id for index in range(BOXES)]
    detections = Detections(
        boxes=np.array(boxes, np.float32),
        scores=np.linspace(0.9, 0.3, BOXES, dtype=np.float32),
        class_ids=np.array(ids, np.int32),
        phrases=tuple(TAGS[index % len(TAGS)] for index in range(BOXES)),
    )
    return detections, crops


def label_stage(times: Sleeping, *, exact: bool = False) -> LabelStage:
    """Return the stage with both models asleep."""
    return LabelStage(*_arguments(), labeller=_labeller(times, exact=exact))


def detect_stage(times: Sleeping, *, exact: bool = False) -> DetectStage:
    """Return the stage with a sleeping detector."""
    return DetectStage(*_arguments(), labeller=_labeller(times, exact=exact))


def segment_stage(times: Sleeping, *, exact: bool = False) -> SegmentStage:
    """Return the stage with a sleeping segmenter."""
    return SegmentStage(*_arguments(), labeller=_labeller(times, exact=exact))


def _arguments() -> tuple[LabelConfig, ClassSet, Exif]:
    return settings(), ClassSet.load(CLASSES), "ignore"


def _labeller(times: Sleeping, *, exact: bool) -> Labeller:
    models = SleepingModels(times, exact=exact)
    return Labeller(settings(), detector=models, segmenter=models)  # type: ignore[arg-type]
