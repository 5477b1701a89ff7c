"""Commit a unit: PNGs first, then the label file, which is the marker that the unit is done."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wsss_ray.classes import ClassSet
from wsss_ray.images.header import LARGEST_MAX_PIXELS
from wsss_ray.images.label_png import decode_label, encode_label
from wsss_ray.labels.gpus import images_by_gpu
from wsss_ray.shards.label_files import encode_labels, find_damage, read_label_counts, read_labels
from wsss_ray.shards.schemas import STATUSES
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage

logger = logging.getLogger(__name__)

PNG_FORM_FILE = "png-form.txt"
"""File beside png/ that says whether it is in color or grey."""


@dataclass(frozen=True, kw_only=True)
class LabelSink:
    """Writes label files, and PNGs named by image id if wanted."""

    output: Storage
    """Run directory."""
    classes: ClassSet
    """Names and ids of the counts."""
    png: bool
    """Write a PNG per image, too."""
    grey: bool
    """PNGs in grey rather than with the class set's palette."""

    @property
    def outputs(self) -> list[str]:
        """Names of what the run directory will hold, for the plan."""
        return ["labels/", "run.json", "summary.json", *(["png/"] if self.png else [])]

    def commit(self, unit: Unit, rows: pa.Table, *, version: str | None, gpus: Sequence[str] = ()) -> Mapping[str, Any]:
        """Write a unit's label file and return its counts.

        Args:
            unit: the images.
            rows: rows of the last stage.
            version: version of the label file that the rows are put into, unless it was replaced; None: write it whole.
            gpus: names of the GPUs that worked on the rows.
        """
        failed = pc.is_valid(rows["error"])
        status = pc.if_else(failed, "failed", rows["status"])
        rows = rows.set_column(rows.schema.get_field_index("status"), "status", status)
        labels = rows.drop_columns(["pixels"])
        if self.png:
            self.write_pngs(labels)
        if version is None:
            counts = count_rows(labels, self.classes, _pixels_of(rows))
            if by_gpu := images_by_gpu(gpus, _worked(labels)):
                counts["gpus"] = by_gpu
            self.output.write(unit.label_path, encode_labels(labels, unit, counts))
            return counts
        return self._put_into(unit, labels, version, images_by_gpu(gpus, _worked(labels)))

    def counts(self, unit: Unit) -> Mapping[str, Any] | None:
        """Return the counts in the unit's label file; None where it does not exist or is damaged."""
        try:
            return None if find_damage(self.output, unit) else read_label_counts(self.output, unit)
        except FileNotFoundError:
            return None

    def claim_png_form(self) -> None:
        """Note whether png/ is in color or grey; raises ValueError where it holds the other form."""
        form = "grey" if self.grey else "palette"
        if self.output.create(PNG_FORM_FILE, form.encode()):
            return
        found = self.output.read(PNG_FORM_FILE).decode(errors="replace")
        if found != form:
            raise ValueError(
                f"{self.output.describe('png')} holds PNGs in the form '{found}', not '{form}'. Give --png-palette "
                f"{found}, or remove png/ and {PNG_FORM_FILE} to write them again."
            )

    def write_pngs(self, labels: pa.Table) -> None:
        """Write the label of every row that has one as png/<image id>.png."""
        for image_id, label in zip(labels["image_id"].to_pylist(), labels["label"].to_pylist(), strict=True):
            if label is not None:
                data = encode_label(_map_of(label), palette=None) if self.grey else label
                self.output.write(png_path(image_id), data, durable=False)  # the label file holds it, too

    def _put_into(self, unit: Unit, labels: pa.Table, version: str, by_gpu: Mapping[str, int]) -> Mapping[str, Any]:
        merged = replace_rows(read_labels(self.output, unit, extra=True), labels)
        pixels = [_count_pixels(label) for label in merged["label"].to_pylist()]
        counts = count_rows(merged, self.classes, pixels)
        all_by_gpu = Counter(read_label_counts(self.output, unit).get("gpus", {})) + Counter(by_gpu)
        if all_by_gpu:
            counts["gpus"] = dict(all_by_gpu)
        if self.output.replace(unit.label_path, encode_labels(merged, unit, counts), version):
            return counts
        logger.warning(
            "%s was replaced by another run meanwhile; its rows are kept", self.output.describe(unit.label_path)
        )
        return read_label_counts(self.output, unit)


def replace_rows(before: pa.Table, fresh: pa.Table) -> pa.Table:
    """Return the rows of a unit with those of some images replaced, by `image_id`, in the same order."""
    rows = {image_id: before.num_rows + index for index, image_id in enumerate(fresh["image_id"].to_pylist())}
    both = pa.concat_tables([before, fresh.select(before.schema.names).cast(before.schema)])
    return both.take([rows.get(image_id, index) for index, image_id in enumerate(before["image_id"].to_pylist())])


def writes_grey(form: Literal["auto", "palette", "grey"], classes: ClassSet) -> bool:
    """Return whether PNGs of this configured form are grey: by default only COCO's, as the data sets publish theirs."""
    return form == "grey" or (form == "auto" and classes.name == "coco")


def png_path(image_id: str) -> str:
    """Return the path of an image's PNG below the run directory."""
    return f"png/{image_id}.png"


def count_rows(labels: pa.Table, classes: ClassSet, pixels: list[dict[int, int]]) -> dict[str, Any]:
    """Return the counts of label rows.

    Args:
        labels: rows in LABEL_SCHEMA.
        classes: names of the ids.
        pixels: per row, pixels by class id.

    Returns:
        images, boxes (unless no row has instances), statuses (status to images), errors (reason to images) and classes
        (name to tagged images, detected images and pixels), as JSON values.
    """
    errors: Counter[str] = Counter()
    tagged: Counter[str] = Counter()
    detected: Counter[str] = Counter()
    covered: Counter[str] = Counter()
    columns = labels.select(["tags", "undetected_tags", "status", "error"]).to_pylist()
    for row, pixels_by_id in zip(columns, pixels, strict=True):
        tagged.update(row["tags"])
        if row["status"] == "failed":
            errors[row["error"][:120]] += 1
            continue
        undetected = set(row["undetected_tags"] or ())
        detected.update(tag for tag in row["tags"] if tag not in undetected)
        for class_id, count in pixels_by_id.items():
            if class_id in classes.by_id:
                covered[classes.by_id[class_id].name] += count
    per_class = {
        name: {"tagged": tagged[name], "detected": detected[name], "pixels": covered[name]}
        for name in classes.names
        if tagged[name] or covered[name]
    }
    statuses = Counter(labels["status"].to_pylist())
    boxes = pc.sum(pc.list_value_length(labels["instances"])).as_py()
    return {
        "images": labels.num_rows,
        **({} if boxes is None else {"boxes": boxes}),
        "statuses": {status: statuses[status] for status in STATUSES if statuses[status]},
        "errors": dict(errors),
        "classes": per_class,
    }


def add_counts(total: dict[str, Any], counts: Mapping[str, Any]) -> None:
    """Add the counts of one unit to a running total, in place; an empty dictionary is zero."""
    for key, value in counts.items():
        if isinstance(value, Mapping):
            add_counts(total.setdefault(key, {}), value)
        else:
            total[key] = total.get(key, 0) + value


def _worked(labels: pa.Table) -> int:
    """Return the images that did not fail."""
    return sum(status != "failed" for status in labels["status"].to_pylist())


def _pixels_of(rows: pa.Table) -> list[dict[int, int]]:
    return [{entry["class_id"]: entry["pixels"] for entry in row or ()} for row in rows["pixels"].to_pylist()]


def _count_pixels(label: bytes | None) -> dict[int, int]:
    if label is None:
        return {}
    ids, counts = np.unique(_map_of(label), return_counts=True)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))


def _map_of(label: bytes) -> np.ndarray:
    """Return the (H, W) class ids of a label of this run, whose image has passed the limit of its shard."""
    return decode_label(label, max_pixels=LARGEST_MAX_PIXELS)
