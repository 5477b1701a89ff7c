"""Evaluate the images of one unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from wsss_ray.datasets.items import TruthInstances
from wsss_ray.evaluation.image import ImageEvaluator, Prediction
from wsss_ray.evaluation.instances import row_masks
from wsss_ray.evaluation.tally import BAD_TRUTH, FAILED, IMAGES_SCHEMA, MISSING, NO_TRUTH, SKIPPED, Tally, image_row
from wsss_ray.evaluation.truths import CocoTruth, Truth, decode_png, unpack
from wsss_ray.images.header import ImageError
from wsss_ray.images.label_png import decode_ids, label_limit
from wsss_ray.labels.inputs import LabelFile, LabelSource, PngFolder
from wsss_ray.shards.image_shards import read_unit
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage


@dataclass(frozen=True, kw_only=True, eq=False)
class UnitResult:
    """Sums and rows of a unit's images."""

    tally: Tally
    images: pa.Table
    """In IMAGES_SCHEMA, in the unit's order."""
    damage: str | None = None
    """Why the unit's label file cannot be used; its images are failed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class UnitEvaluator:
    """Evaluates units. Pickled to Ray tasks."""

    images: Storage
    """Folder of the image shards."""
    labels: LabelSource
    truths: PngFolder | CocoTruth | None
    """Where the truth is; None: in the image shards. COCO's comes with each unit."""
    evaluator: ImageEvaluator
    palette: bytes | None
    """Colors by which label PNGs in plain RGB are read (768 bytes)."""
    subset: frozenset[str] | None
    """Ids of the images to evaluate; None: all."""
    skip_missing: bool
    """Whether images without a label are left out."""

    def __call__(self, unit: Unit, attachment: bytes | None = None) -> UnitResult:
        """Read and evaluate a unit.

        Args:
            unit: a unit of the image shards.
            attachment: its annotations from `pack_by_unit`, if the truth is COCO's.

        Raises:
            ShardError: the image shard cannot be read.
            StorageError: a store fails.
        """
        columns = ["image_id", "height", "width", "tags"]
        turns = self.truths is not None and unit.exif == "apply"
        columns += ["truth"] if self.truths is None else ["image"] if turns else []
        tally = Tally.zero(self.evaluator.index.count)
        if self.subset is not None:  # most units hold no image of a small subset: only their ids are read
            column = read_unit(self.images, unit, columns=["image_id"], check="footer")["image_id"]
            if self.subset.isdisjoint(column.to_pylist()):
                return UnitResult(tally=tally, images=IMAGES_SCHEMA.empty_table())
        table = read_unit(self.images, unit, columns=columns, check="footer")
        ids = table["image_id"].to_pylist()
        chosen = [index for index, image_id in enumerate(ids) if self.subset is None or image_id in self.subset]
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
        """Return the truth of each chosen image, not decoded yet."""
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
        """Add one image to the tally and return its row."""
        image_id, size = row["image_id"], (row["height"], row["width"])
        if self.skip_missing and label_file.png is None and label_file.problem is None:
            return image_row(image_id, SKIPPED)
        try:
            known = self._decode(found, row, size)
        except ImageError as error:
            return image_row(image_id, BAD_TRUTH, str(error))
        if known is None:
            return image_row(image_id, NO_TRUTH)
        return self.evaluator.add(image_id, row["tags"], known, self._prediction(label_file, size), tally)

    def _prediction(self, file: LabelFile, size: tuple[int, int]) -> Prediction:
        if file.problem is not None:
            return self.evaluator.no_label(size, FAILED, file.problem)
        if file.png is None:
            return self.evaluator.no_label(size, MISSING)
        try:
            label = decode_ids(file.png, palette=self.palette, max_pixels=label_limit(size))
            masks = None if file.instances is None else row_masks(file.instances, self.evaluator.index.by_id)
            return self.evaluator.predict(label, size, masks)
        except ImageError as error:
            return self.evaluator.no_label(size, FAILED, str(error))
