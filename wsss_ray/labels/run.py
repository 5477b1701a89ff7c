"""A run of labels beside the image shards it was made from: what audit, gallery and export read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from wsss_ray.classes import ClassSet
from wsss_ray.config import StorageConfig
from wsss_ray.engine.run_directory import RUN_FILE, units_to_do
from wsss_ray.errors import JobError
from wsss_ray.images.header import ImageError
from wsss_ray.images.label_png import decode_label, decode_truth
from wsss_ray.shards.footers import ShardError
from wsss_ray.shards.image_shards import ShardSet, check_label_space, read_shard_set, read_unit
from wsss_ray.shards.label_files import read_labels
from wsss_ray.shards.schemas import LABEL_SCHEMA
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage


@dataclass(frozen=True, kw_only=True)
class LabelRun:
    """A run directory of labels or predictions, and its image shards."""

    classes: ClassSet
    images: Storage
    """Folder of the image shards."""
    labels: Storage
    """Run directory."""
    shards: ShardSet
    units: tuple[Unit, ...]
    """Units that have a label file, in order."""
    missing: tuple[Unit, ...]
    """Units that have none yet."""
    identity: Mapping[str, Any] = field(repr=False)
    """What run.json holds."""

    @classmethod
    def open(cls, *, labels: str, images: str, classes: str, storage: StorageConfig) -> LabelRun:
        """Find the label files of a run.

        Args:
            labels: run directory.
            images: folder of the image shards.
            classes: built-in class set or YAML file.
            storage: how S3 is reached.

        Raises:
            ValueError: one of them cannot be read, they do not belong together, or nothing is labelled yet.
        """
        image_storage, label_storage = Storage(images, storage), Storage(labels, storage)
        class_set = ClassSet.load(classes)
        shards = read_shard_set(image_storage)
        check_label_space(shards, class_set)
        identity = _read_identity(label_storage)
        if identity.get("shards", shards.digest) != shards.digest:
            raise ValueError(
                f"the run in {label_storage.uri} was made from other image shards than {image_storage.uri} holds. "
                "Give the --images that it was made from, or label these shards with wsss-ray label."
            )
        done, missing = units_to_do(shards, label_storage, limit=None)
        if not done:
            raise ValueError(
                f"{label_storage.describe('labels')} holds no label file yet: run wsss-ray label (or wsss-ray predict) "
                "first."
            )
        return cls(
            classes=class_set,
            images=image_storage,
            labels=label_storage,
            shards=shards,
            units=tuple(done),
            missing=tuple(missing),
            identity=identity,
        )

    @property
    def box_threshold(self) -> float | None:
        """Score above which the run kept boxes; None for a run without a detector."""
        threshold = self.identity.get("detector", {}).get("box_threshold")
        return None if threshold is None else float(threshold)


OnDamage = Callable[[str], None]
"""Told why a unit's label file cannot be used."""


def label_rows(images: Storage, labels: Storage, unit: Unit, on_damage: OnDamage) -> pa.Table:
    """Rows of a unit's label file in LABEL_SCHEMA; where it is damaged, a failed row for each image of the unit.

    Raises:
        FileNotFoundError: the label file is not there.
        ShardError: it is damaged, and so is the image shard.
    """
    try:
        return read_labels(labels, unit.label_path)
    except ShardError as error:
        on_damage(str(error))
        return _failed_rows(images, unit, str(error))


def read_joined(
    images: Storage, labels: Storage, unit: Unit, *, columns: Sequence[str], on_damage: OnDamage | None = None
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Rows of a unit, image and label side by side, in order.

    Args:
        images: folder of the image shards.
        labels: run directory.
        unit: one that has a label file.
        columns: columns of IMAGE_SCHEMA wanted of the image rows.
        on_damage: is told why the label file cannot be used, and each image gets a failed row; None: that is an error.

    Yields:
        An image row and a row of LABEL_SCHEMA, as Python values.

    Raises:
        ShardError: a shard or label file is damaged, or they do not hold the same images.
    """
    rows = read_unit(
        images,
        unit,
        columns=list(dict.fromkeys(["image_id", *columns])),
        check="content" if "image" in columns else "footer",
    )
    if on_damage is None:
        labelled = read_labels(labels, unit.label_path)
    else:
        labelled = label_rows(images, labels, unit, on_damage)
    if rows["image_id"].to_pylist() != labelled["image_id"].to_pylist():
        problem = f"{labels.describe(unit.label_path)} does not hold the images of its unit. Remove it and label again."
        if on_damage is None:
            raise ShardError(problem)
        on_damage(problem)
        labelled = _failed_rows(images, unit, problem)
    for index in range(rows.num_rows):  # one at a time: the unit's encoded images once more as bytes would double them
        yield rows.slice(index, 1).to_pylist()[0], labelled.slice(index, 1).to_pylist()[0]


def _failed_rows(images: Storage, unit: Unit, problem: str) -> pa.Table:
    """A failed row for each image of a unit whose label file cannot be used."""
    rows = read_unit(images, unit, columns=["image_id", "height", "width", "tags"], check="footer").to_pylist()
    failed = {"status": "failed", "error": f"label file: {problem}"}
    return pa.Table.from_pylist([{**row, **failed} for row in rows], schema=LABEL_SCHEMA)


def damage_error(damaged: Mapping[str, str]) -> JobError | None:
    """What ends a job that went on past damaged label files, given the reason by name of the unit; None without."""
    if not damaged:
        return None
    first = min(damaged)
    return JobError(
        f"{len(damaged):,} label files cannot be used, and their images counted as failed; the first: {damaged[first]}"
    )


def label_of(row: Mapping[str, Any]) -> np.ndarray:
    """(H, W) class ids of a label row that has not failed.

    Raises:
        ShardError: its PNG cannot be read, or has not the row's size; names the image.
    """
    size = row["height"], row["width"]
    try:
        label = decode_label(row["label"], max_pixels=size[0] * size[1])
    except ImageError as error:
        raise ShardError(f"the label of image {row['image_id']} cannot be read: {error}. Label it again.") from error
    if label.shape != size:
        raise ShardError(f"the label of image {row['image_id']} has not the image's size. Label it again.")
    return label


def truth_of(row: Mapping[str, Any], classes: ClassSet) -> np.ndarray | None:
    """(H, W) class ids of an image row's truth, None where it has none.

    Raises:
        ShardError: it cannot be read, or does not fit the image or the classes; names the image.
    """
    if row["truth"] is None:
        return None
    ids = [classes.background_id, *classes.by_id]
    size = row["height"], row["width"]
    try:
        return decode_truth(row["truth"], size=size, allowed_ids=ids, ignore_id=classes.ignore_id)
    except ImageError as error:
        raise ShardError(
            f"the truth of image {row['image_id']} cannot be used: {error}. Make the shards again."
        ) from error


def _read_identity(labels: Storage) -> dict[str, Any]:
    try:
        identity = json.loads(labels.read(RUN_FILE))
    except FileNotFoundError:
        raise ValueError(
            f"there is no {labels.describe(RUN_FILE)}: --labels must be the --output of wsss-ray label or "
            "wsss-ray predict."
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{labels.describe(RUN_FILE)} is not JSON ({error}): it is no run of wsss_ray.") from error
    if not isinstance(identity, dict):
        raise ValueError(f"{labels.describe(RUN_FILE)} holds no settings: it is no run of wsss_ray.")  # noqa: TRY004
    return identity
