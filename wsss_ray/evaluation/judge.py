"""Judging one unit: every image's label against its truth, summed into counts that no number of images enlarges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from wsss_ray.datasets.items import TruthInstances
from wsss_ray.evaluation.boundary import boundary_width, count_boundaries
from wsss_ray.evaluation.instances import (
    FOUND_IOU,
    Masks,
    connected_parts,
    count_parts,
    count_recalled,
    group_objects,
    matching_parts,
    row_masks,
    without,
)
from wsss_ray.evaluation.truths import CocoTruth, Truth, check_size, decode_png, unpack
from wsss_ray.images.header import ImageError
from wsss_ray.images.label_png import decode_ids, label_limit
from wsss_ray.labels.inputs import LabelFile, LabelSource, PngFolder
from wsss_ray.labels.scores import ClassIndex, Scores, count_pixels, headline, score
from wsss_ray.shards.image_shards import read_unit
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage

STATES = ("judged", "missing", "failed", "no_truth", "bad_truth")
"""judged: by its label. missing, failed: no label or an unusable one, judged as no class throughout. no_truth,
bad_truth: without a truth or a usable one, not judged."""

IMAGES_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("miou", pa.float64()),
        pa.field("class_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("truth", pa.list_(pa.int32()), nullable=False),
        pa.field("predicted", pa.list_(pa.int32()), nullable=False),
        pa.field("both", pa.list_(pa.int32()), nullable=False),
    ]
)
"""One image: its state, why it is failed or bad_truth, its own mIoU (over the classes in its truth), and for the
classes in its truth or label, as the headline counts them, the pixels in the truth, in the prediction, and in both."""


@dataclass(kw_only=True, eq=False)
class Tally:
    """Sums over images, int64, exact."""

    matrix: np.ndarray
    """(C + 1, C + 1) pixels: truth down, prediction across, the last of both for what is no class."""
    boundary: np.ndarray
    """(3, C) pixels in the boundary regions: of the truth, of the prediction, in both."""
    tagged: np.ndarray
    """(3, C) images tagged with the class: with pixels of it in the truth, of these found, without such pixels."""
    objects: np.ndarray
    """(2, C) objects of tagged classes in the truth, and those recalled by a mask of their own."""
    unknown_truth: int = 0
    """Pixels whose truth is neither a class nor ignore."""
    by_instances: int = 0
    """Images whose masks are the instances of their row."""
    by_components: int = 0
    """Images whose masks are the connected parts of their label."""

    @classmethod
    def zero(cls, count: int) -> Tally:
        """Of no image, for `count` classes."""
        return cls(
            matrix=np.zeros((count + 1, count + 1), np.int64),
            boundary=np.zeros((3, count), np.int64),
            tagged=np.zeros((3, count), np.int64),
            objects=np.zeros((2, count), np.int64),
        )

    def add(self, other: Tally) -> None:
        """Add the sums of other images."""
        self.matrix += other.matrix
        self.boundary += other.boundary
        self.tagged += other.tagged
        self.objects += other.objects
        self.unknown_truth += other.unknown_truth
        self.by_instances += other.by_instances
        self.by_components += other.by_components


@dataclass(frozen=True, kw_only=True, eq=False)
class UnitResult:
    """What is known of a unit's images."""

    tally: Tally
    images: pa.Table
    """In IMAGES_SCHEMA, in the unit's order."""
    damage: str | None = None
    """Why the unit's label file cannot be used: its images are failed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Judge:
    """Judges units. It is pickled to the tasks."""

    images: Storage
    """Folder of the image shards."""
    labels: LabelSource
    truths: PngFolder | CocoTruth | None
    """Where the truth is; None: in the image shards. COCO's comes with each unit."""
    index: ClassIndex
    ignore_id: int
    palette: bytes | None
    """Colours by which label PNGs in plain RGB are read (768 bytes)."""
    boundary_ratio: float | None
    """Width of the boundary regions as a share of the diagonal; None: not computed."""
    smallest_object: int | None
    """Pixels from which a connected part of the truth is an object; None: objects are not counted."""
    subset: frozenset[str] | None
    """Ids of the images to judge; None: all."""

    def __call__(self, unit: Unit, attachment: bytes | None = None) -> UnitResult:
        """Read and judge a unit; `attachment` is what `pack_by_unit` packed for it, where the truth is COCO's.

        Raises:
            ShardError: the image shard cannot be read.
            StorageError: a store fails.
        """
        columns = ["image_id", "height", "width", "tags"]
        turns = self.truths is not None and unit.exif == "apply"
        columns += ["truth"] if self.truths is None else ["image"] if turns else []
        tally = Tally.zero(self.index.count)
        if self.subset is not None:  # most units hold none of a small one: nothing but their ids is read
            column = read_unit(self.images, unit, columns=["image_id"], check="footer")["image_id"]
            if self.subset.isdisjoint(column.to_pylist()):
                return UnitResult(tally=tally, images=IMAGES_SCHEMA.empty_table())
        table = read_unit(self.images, unit, columns=columns, check="footer")
        ids = table["image_id"].to_pylist()
        chosen = [place for place, image_id in enumerate(ids) if self.subset is None or image_id in self.subset]
        rows = table.take(chosen).to_pylist()
        labels = self.labels.read(unit, ids, chosen)
        truths = self._truths(unit, ids, chosen, rows, attachment)
        images = [self._image(row, label, truth, tally) for row, label, truth in zip(rows, labels, truths, strict=True)]
        damage = next((label.damage for label in labels if label.damage), None)
        return UnitResult(tally=tally, images=pa.Table.from_pylist(images, schema=IMAGES_SCHEMA), damage=damage)

    def _truths(
        self,
        unit: Unit,
        ids: Sequence[str],
        chosen: Sequence[int],
        rows: Sequence[dict[str, Any]],
        packed: bytes | None,
    ) -> list[LabelFile | TruthInstances]:
        """The truth of each chosen image, not decoded yet; where there is none, a file of nothing."""
        if isinstance(self.truths, PngFolder):
            return [*self.truths.read(unit, ids, chosen)]
        if self.truths is None:
            return [LabelFile(png=row["truth"]) for row in rows]
        assert packed is not None, "COCO's truth comes with the unit"
        found = unpack(packed)
        return [found.get(row["image_id"], LabelFile()) for row in rows]

    def _decode(self, found: LabelFile | TruthInstances, row: dict[str, Any], size: tuple[int, int]) -> Truth | None:
        if isinstance(found, TruthInstances):
            assert isinstance(self.truths, CocoTruth), "annotations are COCO's"
            return self.truths.paint(found, image=row.get("image"), size=size)
        if found.problem is not None:
            raise ImageError(found.problem)
        if found.png is None:
            return None
        return decode_png(found.png, palette=self.palette, image=row.get("image"), size=size)

    def _image(
        self, row: dict[str, Any], label_file: LabelFile, found: LabelFile | TruthInstances, tally: Tally
    ) -> dict[str, Any]:
        """Judge one image: add to the tally, return its row."""
        size = (row["height"], row["width"])
        try:
            known = self._decode(found, row, size)
        except ImageError as error:
            return _row(row["image_id"], "bad_truth", str(error))
        if known is None:
            return _row(row["image_id"], "no_truth")
        label = known.label
        truth = self.index(label)
        unknown = np.count_nonzero((truth == self.index.count) & (label != self.ignore_id))
        state, reason, prediction, masks = self._prediction(label_file, size)
        matrix = count_pixels(truth, prediction, self.index.count)
        tally.unknown_truth += int(unknown)
        tally.matrix += matrix
        if self.boundary_ratio is not None:
            width = boundary_width(*size, self.boundary_ratio)
            tally.boundary += count_boundaries(truth, prediction, self.index.count, width)
        scores = score(headline(matrix))
        places = [self.index.names.index(name, 1) for name in row["tags"]]
        _count_tags(places, scores, tally)
        if self.smallest_object is not None:
            tally.objects += self._count_objects(places, known, truth, prediction, masks)
            tally.by_instances += state == "judged" and masks is not None
            tally.by_components += state == "judged" and masks is None
        shown = np.flatnonzero(scores.truth + scores.predicted)
        return _row(
            row["image_id"],
            state,
            reason,
            miou=None if np.isnan(scores.miou) else scores.miou,
            class_ids=[self.index.ids[place] for place in shown],
            truth=scores.truth[shown].tolist(),
            predicted=scores.predicted[shown].tolist(),
            both=scores.intersection[shown].tolist(),
        )

    def _prediction(
        self, file: LabelFile, size: tuple[int, int]
    ) -> tuple[str, str | None, np.ndarray, dict[int, list[bytes]] | None]:
        """State, reason, indices and masks of an image's label; no class throughout where it cannot be used."""
        nothing = np.full(size, self.index.count, self.index.lookup.dtype)
        if file.problem is not None:
            return "failed", file.problem, nothing, None
        if file.png is None:
            return "missing", None, nothing, None
        try:
            label = decode_ids(file.png, palette=self.palette, max_pixels=label_limit(size))
            check_size(label, size)
            prediction = self.index(label)
            self._check_ids(label, prediction)
            masks = None if file.instances is None else row_masks(file.instances, self.index.places)
        except ImageError as error:
            return "failed", str(error), nothing, None
        return "judged", None, prediction, masks

    def _count_objects(
        self,
        places: Sequence[int],
        known: Truth,
        truth: np.ndarray,
        prediction: np.ndarray,
        masks: Masks | None,
    ) -> np.ndarray:
        """(2, C) objects of the tagged classes, and those of them that a mask recalls."""
        assert self.smallest_object is not None, "objects are counted"
        size, count, smallest = truth.shape, self.index.count, self.smallest_object
        if known.objects is not None:
            objects = group_objects(known.objects, self.index.places, places)
            return count_recalled(objects, matching_parts(prediction, objects) if masks is None else masks, size, count)
        ignored = truth == count
        if masks is None:
            return count_parts(truth, np.where(ignored, count, prediction), places, count, smallest=smallest)
        return count_recalled(connected_parts(truth, places, smallest=smallest), without(masks, ignored), size, count)

    def _check_ids(self, label: np.ndarray, prediction: np.ndarray) -> None:
        unknown = (prediction == self.index.count) & (label != self.ignore_id)
        if unknown.any():
            row, column = np.argwhere(unknown)[0]
            raise ImageError(
                f"unknown ids: {label[row, column]} at row {row}, column {column} is no class, and ignore is "
                f"{self.ignore_id}"
            )


def _count_tags(places: Sequence[int], scores: Scores, tally: Tally) -> None:
    for place in places:
        if scores.truth[place] == 0:
            tally.tagged[2, place] += 1
        else:
            tally.tagged[0, place] += 1
            tally.tagged[1, place] += bool(scores.iou[place] >= FOUND_IOU)


def _row(image_id: str, state: str, reason: str | None = None, **counts: Any) -> dict[str, Any]:
    assert state in STATES
    empty: dict[str, Any] = {"miou": None, "class_ids": [], "truth": [], "predicted": [], "both": []}
    return {"image_id": image_id, "state": state, "reason": reason, **empty, **counts}
