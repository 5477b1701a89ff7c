"""A run of labels beside the image shards it was made from: read by audit, gallery and export."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wsss_ray.classes import ClassSet
from wsss_ray.config import StorageConfig
from wsss_ray.engine.run_directory import RUN_FILE, RunDirectory, units_to_do
from wsss_ray.errors import JobError
from wsss_ray.images.header import ImageError
from wsss_ray.images.label_png import decode_truth
from wsss_ray.shards.footers import ShardError
from wsss_ray.shards.image_shards import ShardSet, check_label_space, read_shard_set, read_unit
from wsss_ray.shards.label_files import read_labels
from wsss_ray.shards.label_row import LabelRow
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
    """Content of run.json."""

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
        identity = read_identity(label_storage)
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
"""Called with the reason why a unit's label file cannot be used."""


def read_label_rows(
    images: Storage, labels: Storage, unit: Unit, classes: ClassSet, on_damage: OnDamage
) -> Iterator[LabelRow]:
    """Read the rows of a unit's label file, one at a time.

    Args:
        images: folder of the image shards, read only where the label file is damaged.
        labels: run directory.
        unit: the images.
        classes: the classes that tags and instances may have.
        on_damage: called where the label file cannot be used: each image of the unit then gets a failed row.

    Yields:
        The unit's rows in order. A row that cannot be used is a failed row.

    Raises:
        FileNotFoundError: the label file does not exist.
        ShardError: it is damaged, and so is the image shard.
    """
    try:
        rows = read_labels(labels, unit)
    except ShardError as error:
        on_damage(str(error))
        columns = ["image_id", "height", "width", "tags"]
        for row in read_unit(images, unit, columns=columns, check="footer").to_pylist():
            yield LabelRow.failure(row, f"label file: {error}")
        return
    for index in range(rows.num_rows):  # all at once, the unit's labels would be in memory twice
        row = rows.slice(index, 1).to_pylist()[0]
        try:
            yield LabelRow.from_row(row, classes)
        except ShardError as error:
            known = [tag for tag in row["tags"] if tag in classes.by_name]
            yield LabelRow.failure({**row, "tags": known}, f"label row: {error}")


def read_joined(
    images: Storage, labels: Storage, unit: Unit, classes: ClassSet, *, columns: Sequence[str], on_damage: OnDamage
) -> Iterator[tuple[dict[str, Any], LabelRow]]:
    """Read the rows of a unit, image and label side by side, as `read_label_rows` does.

    Args:
        images: folder of the image shards.
        labels: run directory.
        unit: one that has a label file.
        classes: the classes that tags and instances may have.
        columns: columns of IMAGE_SCHEMA to return in the image rows, beside `image_id`.
        on_damage: as for `read_label_rows`.

    Yields:
        An image row as Python values, and its label row.

    Raises:
        FileNotFoundError: the label file does not exist.
        ShardError: the image shard is damaged.
    """
    rows = read_unit(
        images,
        unit,
        columns=list(dict.fromkeys(["image_id", *columns])),
        check="content" if "image" in columns else "footer",
    )
    for index, label in enumerate(read_label_rows(images, labels, unit, classes, on_damage)):
        image = rows.slice(index, 1).to_pylist()[0]
        assert image["image_id"] == label.image_id, "a label file belongs to its unit by digest"
        yield image, label


def damage_error(damaged: Mapping[str, str]) -> JobError | None:
    """Return the error of a job that skipped damaged label files; None without any. `damaged` is the reason by unit."""
    if not damaged:
        return None
    first = min(damaged)
    return JobError(
        f"{len(damaged):,} label files cannot be used, and their images counted as failed; the first: {damaged[first]}"
    )


def truth_of(row: Mapping[str, Any], classes: ClassSet) -> np.ndarray | None:
    """Return the (H, W) class ids of an image row's truth, None where it has none.

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


def read_identity(labels: Storage) -> dict[str, Any]:
    """Read the settings that a run's labels were made with.

    Raises:
        ValueError: the folder holds no run, or its run.json is damaged.
    """
    try:
        return RunDirectory(storage=labels).read_identity()
    except FileNotFoundError:
        raise ValueError(
            f"there is no {labels.describe(RUN_FILE)}: --labels must be the --output of wsss-ray label or "
            "wsss-ray predict."
        ) from None
