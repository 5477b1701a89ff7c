"""The gallery's part of one unit, written by the task that reads the unit: pictures and the content of cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from wsss_ray.classes import ClassSet
from wsss_ray.engine.ownership import Ownership
from wsss_ray.images.decoding import decode_row
from wsss_ray.images.header import ImageError
from wsss_ray.labels.run import read_joined, truth_of
from wsss_ray.labels.scores import ClassIndex, confusion_counts, headline, score
from wsss_ray.report.pictures import Overlay, encode_photo
from wsss_ray.report.state import check_owner
from wsss_ray.shards.instance import Instance
from wsss_ray.shards.label_row import LabelRow
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage

_WRITERS = 8


@dataclass(frozen=True, kw_only=True)
class Box:
    """A box to draw."""

    class_index: int
    phrase: str
    score: float
    mask_score: float
    corners: tuple[float, float, float, float]
    """XYXY pixels of the image."""

    @property
    def width(self) -> float:
        """Return the side in pixels, not negative."""
        return round(max(0.0, self.corners[2] - self.corners[0]), 1)

    @property
    def height(self) -> float:
        """Return the side in pixels, not negative."""
        return round(max(0.0, self.corners[3] - self.corners[1]), 1)


@dataclass(kw_only=True)
class Card:
    """Data of an image for its card and for the index, sent to the driver."""

    image_id: str
    unit: str
    height: int
    width: int
    status: str
    tags: list[int]
    """Index in the class set, as everywhere in the gallery."""
    missed: list[int]
    """Tags without a pixel in the label; without a label all of them."""
    shares: list[tuple[int, float]] = field(default_factory=list)
    """Classes of the label and their share of the image, the largest first."""
    boxes: list[Box] | None = None
    """None where the run has none: a prediction."""
    has_photo: bool = False
    has_label: bool = False
    has_truth: bool = False
    iou: float | None = None
    """Mean IoU of the image over the classes in its truth, background included."""
    class_iou: list[tuple[int, float]] = field(default_factory=list)
    """IoU of each class in truth or label; 0 where only one of them has it."""
    problems: list[str] = field(default_factory=list)
    """Why the image failed, or which part of it cannot be shown."""
    rank: int | None = None
    """Rank in the audit's list."""
    reasons: list[dict[str, Any]] = field(default_factory=list)
    """Reasons of the audit."""
    disagreements: list[dict[str, Any]] = field(default_factory=list)
    """Regions of the audit where SAM and the truth disagree."""


@dataclass(frozen=True, kw_only=True)
class UnitCards:
    """Data of a unit's images, sent to the driver."""

    cards: list[Card]
    damage: str | None
    """Why the unit's label file cannot be used: its images are failed."""


@dataclass(frozen=True, kw_only=True)
class UnitReporter:
    """Makes a unit's part of the gallery. It is pickled to the tasks."""

    images: Storage
    """Folder of the image shards."""
    labels: Storage
    """Run directory."""
    output: Storage
    """The gallery."""
    gallery: Ownership
    classes: ClassSet
    thumbnail: int
    picture: int
    chosen: Mapping[str, Sequence[int]] | None
    """Rows to show by name of the unit; None: all."""

    def __call__(self, unit: Unit) -> UnitCards:
        """Write the unit's pictures; one decoded image in memory at a time."""
        check_owner(self.gallery)
        rows = None if self.chosen is None else frozenset(self.chosen[unit.name])
        columns = ["image", "height", "width", "truth"]
        cards: list[Card] = []
        damage: list[str] = []
        with ThreadPoolExecutor(_WRITERS) as pool:
            joined = read_joined(self.images, self.labels, unit, self.classes, columns=columns, on_damage=damage.append)
            for index, (image, label) in enumerate(joined):
                if rows is None or index in rows:
                    card, files = self._show(unit, image, label)
                    for _ in pool.map(lambda item: self.output.write(*item), files.items()):
                        pass
                    cards.append(card)
        return UnitCards(cards=cards, damage=damage[0] if damage else None)

    @cached_property
    def _class_indexes(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.classes.names)}

    @cached_property
    def _overlay(self) -> Overlay:
        return Overlay(self.classes)

    def _show(self, unit: Unit, image: dict[str, Any], row: LabelRow) -> tuple[Card, dict[str, bytes]]:
        """Return the card of an image and its files by path."""
        tags = [self._class_indexes[name] for name in row.tags]
        card = Card(
            image_id=row.image_id,
            unit=unit.name,
            height=row.height,
            width=row.width,
            status=row.status,
            tags=tags,
            missed=tags,
        )
        if row.error:
            card.problems.append(row.error)
        if row.instances is not None:
            card.boxes = [self._box(instance) for instance in row.instances]
        files = self._add_photo(unit, image, card)
        label = self._add_label(row, card, files)
        self._add_truth(image, label, card, files)
        return card, files

    def _box(self, instance: Instance) -> Box:
        left, top, right, bottom = (round(value, 1) for value in instance.box)
        return Box(
            class_index=self._class_indexes[self.classes.by_id[instance.class_id].name],
            phrase=instance.phrase,
            score=round(instance.score, 3),
            mask_score=round(instance.mask_score, 3),
            corners=(left, top, right, bottom),
        )

    def _add_photo(self, unit: Unit, image: dict[str, Any], card: Card) -> dict[str, bytes]:
        try:
            pixels = decode_row(image, exif=unit.exif)
        except ImageError as error:
            card.problems.append(f"the photo cannot be shown: {error}")
            return {}
        card.has_photo = True
        return {
            f"thumbnails/{card.image_id}.jpg": encode_photo(pixels, self.thumbnail),
            f"photos/{card.image_id}.jpg": encode_photo(pixels, self.picture),
        }

    def _add_label(self, row: LabelRow, card: Card, files: dict[str, bytes]) -> np.ndarray | None:
        if row.label is None:
            return None
        try:
            label = row.label_map()
        except ValueError as error:
            card.problems.append(str(error))
            return None
        ids, counts = np.unique(label, return_counts=True)
        shares = [
            (self._class_indexes[self.classes.by_id[class_id].name], count / label.size)
            for class_id, count in zip(ids.tolist(), counts.tolist(), strict=True)
            if class_id in self.classes.by_id
        ]
        card.shares = sorted(shares, key=lambda item: -item[1])
        there = {index for index, _ in shares}
        card.missed = [index for index in card.tags if index not in there]
        card.has_label = True
        files[f"labels/{card.image_id}.png"] = self._overlay.encode(label, self.picture)
        return label

    def _add_truth(self, image: dict[str, Any], label: np.ndarray | None, card: Card, files: dict[str, bytes]) -> None:
        try:
            truth = truth_of(image, self.classes)
        except ValueError as error:
            card.problems.append(str(error))
            return
        if truth is None:
            return
        card.has_truth = True
        files[f"truths/{card.image_id}.png"] = self._overlay.encode(truth, self.picture)
        if label is not None:
            index = ClassIndex.of(self.classes)
            scores = score(headline(confusion_counts(index(truth), index(label), index.count)))
            card.iou = None if np.isnan(scores.miou) else round(scores.miou, 4)
            card.class_iou = [
                (index - 1, round(float(np.nan_to_num(scores.iou[index])), 4))
                for index in np.flatnonzero(scores.truth + scores.predicted).tolist()
                if index > 0
            ]
