"""The result of an evaluation: metrics, counts of images, and the same as JSON values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wsss_ray.evaluation.bootstrap import miou_interval
from wsss_ray.evaluation.instances import InstanceRule
from wsss_ray.evaluation.tally import BAD_TRUTH, FAILED, MISSING, NO_TRUTH, SKIPPED, Tally
from wsss_ray.labels.scores import ClassIndex, divide, dropped, headline, mean, score

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ClassResult:
    """Metrics of one class; shares are 0 to 1, NaN where the divisor is 0."""

    name: str
    id: int
    iou: float
    """NaN where no truth has the class, which is then not in the mean."""
    precision: float
    recall: float
    boundary_iou: float
    pixels: int
    """Pixels in the truth."""
    predicted_pixels: int
    images: int
    """Images whose truth has the class."""
    tagged: int
    """Images tagged with the class whose truth has it."""
    found: int
    """Of these, images whose label has the class with an IoU of at least 0.5."""
    tagged_without_truth: int
    """Images tagged with the class whose truth has no pixel of it."""
    objects: int
    """Objects of the class in the truth of images tagged with it; see `instances`."""
    recalled: int
    """Of these, objects recalled by a mask of their own with an IoU of at least 0.5."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Metrics of labels against their truth.

    Shares are 0 to 1, NaN where the divisor is 0; means are over the classes present in the truth, background
    included.
    """

    split: str | None
    class_set: str
    images: int
    """Images evaluated, with those whose label is missing or failed."""
    miou: float
    interval: tuple[float, float] | None
    """95 % interval of the mIoU by a bootstrap over images."""
    pixel_accuracy: float
    mean_accuracy: float
    frequency_weighted_iou: float
    boundary_iou: float
    """Mean boundary IoU; NaN if it was not computed."""
    tagged_class_recall: float
    """Share of the tagged (image, class) pairs, of those with pixels in the truth, whose class reaches IoU >= 0.5."""
    instance_recall: float
    """Share of the tagged objects in the truth that are recalled by a mask of their own; NaN if none was counted."""
    instance_rule: InstanceRule | None
    """Rule of what counts as an object and as a mask; None if objects were not counted."""
    dropped_miou: float
    """mIoU without the pixels that have no predicted class: labelled ignore, or in images without a usable label."""
    coverage: float
    """Share of the pixels with truth that have a predicted class."""
    classes: tuple[ClassResult, ...]
    """By index: background first, then in the class set's order."""
    matrix: np.ndarray
    """(C, C + 1) int64 pixels: truth down, prediction across, last the predictions of no class."""
    unknown_truth_pixels: int
    """Pixels whose truth is neither a class nor ignore: left out as ignore is."""
    missing: tuple[str, ...]
    """Ids of images without a label."""
    skipped: tuple[str, ...]
    """Ids of images without a label that are left out; `missing` is then empty."""
    failed: Mapping[str, str]
    """Ids of images whose label cannot be used, with the reason."""
    no_truth: tuple[str, ...]
    """Ids of images without a truth: not evaluated."""
    bad_truth: Mapping[str, str]
    """Ids of images whose truth cannot be used, with the reason: not evaluated."""
    not_in_shards: tuple[str, ...]
    """Ids of the subset that the image shards do not hold."""
    rejected: int
    """Images that the sharding job rejected: not evaluated."""
    images_per_second: float
    """Rows evaluated, or left out by the subset, per second since the first unit was finished. Not in the JSON file,
    which is the same after a rerun."""

    @property
    def headline(self) -> str:
        """One line: "mIoU 88.3 (95 % 87.9-88.7), split train, 1,464 images"."""
        interval = f" (95 % {100 * self.interval[0]:.1f}-{100 * self.interval[1]:.1f})" if self.interval else ""
        split = f"split {self.split}" if self.split else "split not stated"
        plural = "" if self.images == 1 else "s"
        return f"mIoU {100 * self.miou:.1f}{interval}, {split}, {self.images:,} image{plural}"

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; NaN becomes null."""
        scalars = (
            *("miou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "boundary_iou"),
            *("tagged_class_recall", "instance_recall", "dropped_miou", "coverage"),
        )
        return {
            "format": FORMAT_VERSION,
            "headline": self.headline,
            "split": self.split,
            "class_set": self.class_set,
            "images": self.images,
            "interval": None if self.interval is None else list(self.interval),
            **{name: _number(getattr(self, name)) for name in scalars},
            "instance_rule": None if self.instance_rule is None else self.instance_rule.to_json(),
            "classes": [{key: _number(value) for key, value in vars(entry).items()} for entry in self.classes],
            "confusion": {
                "truth_down": [entry.name for entry in self.classes],
                "prediction_across": [*(entry.name for entry in self.classes), "ignore"],
                "pixels": self.matrix.tolist(),
            },
            "unknown_truth_pixels": self.unknown_truth_pixels,
            "missing": list(self.missing),
            "skipped": list(self.skipped),
            "failed": dict(self.failed),
            "no_truth": list(self.no_truth),
            "bad_truth": dict(self.bad_truth),
            "not_in_shards": list(self.not_in_shards),
            "rejected": self.rejected,
        }


def conclude(
    tally: Tally,
    images: pa.Table,
    index: ClassIndex,
    *,
    class_set: str,
    boundary: bool,
    resamples: int,
    seed: int,
    split: str | None = None,
    instance_rule: InstanceRule | None = None,
    subset: frozenset[str] | None = None,
    rejected: int = 0,
    images_per_second: float = math.nan,
) -> Evaluation:
    """Return the metrics of the sums.

    Args:
        tally: sums over all images.
        images: in IMAGES_SCHEMA, one row per image, in the order of the shards.
        index: the classes.
        class_set: name of the class set.
        boundary: whether the tally has boundaries.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        split: name of the split.
        instance_rule: rule by which objects were counted; None: they were not.
        subset: ids that were to be evaluated; None: all.
        rejected: images that the sharding job rejected.
        images_per_second: speed of the evaluation.
    """
    left_out = pc.is_in(images["state"], pa.array([SKIPPED, NO_TRUTH, BAD_TRUTH]))
    with_truth = images.filter(pc.invert(left_out))
    owner, class_index, counts = _entries(with_truth, index)
    scores = score(headline(tally.matrix))
    truth_region, predicted_region, both_regions = tally.boundary
    union = truth_region + predicted_region - both_regions
    boundary_iou = divide(both_regions, np.where(scores.present & boundary, union, 0))
    holding = np.bincount(class_index[counts[0] > 0], minlength=index.count)
    tagged, found, absent = tally.tagged
    objects, recalled = tally.objects
    classes = tuple(
        ClassResult(
            name=index.names[c],
            id=index.ids[c],
            iou=float(scores.iou[c]),
            precision=float(scores.precision[c]),
            recall=float(scores.recall[c]),
            boundary_iou=float(boundary_iou[c]),
            pixels=int(scores.truth[c]),
            predicted_pixels=int(scores.predicted[c]),
            images=int(holding[c]),
            tagged=int(tagged[c]),
            found=int(found[c]),
            tagged_without_truth=int(absent[c]),
            objects=int(objects[c]),
            recalled=int(recalled[c]),
        )
        for c in range(index.count)
    )
    without_ignored = tally.matrix[:-1]
    return Evaluation(
        split=split,
        class_set=class_set,
        images=with_truth.num_rows,
        miou=scores.miou,
        interval=miou_interval(owner, class_index, counts, images=with_truth.num_rows, resamples=resamples, seed=seed),
        pixel_accuracy=scores.pixel_accuracy,
        mean_accuracy=scores.mean_accuracy,
        frequency_weighted_iou=scores.frequency_weighted_iou,
        boundary_iou=mean(boundary_iou),
        tagged_class_recall=float(divide(found.sum(), tagged.sum())),
        instance_recall=float(divide(recalled.sum(), objects.sum())),
        instance_rule=instance_rule,
        dropped_miou=score(dropped(tally.matrix)).miou,
        coverage=float(divide(without_ignored[:, :-1].sum(), without_ignored.sum())),
        classes=classes,
        matrix=without_ignored,
        unknown_truth_pixels=tally.unknown_truth,
        missing=tuple(_of_state(images, MISSING)),
        skipped=tuple(_of_state(images, SKIPPED)),
        failed=_of_state(images, FAILED),
        no_truth=tuple(_of_state(images, NO_TRUTH)),
        bad_truth=_of_state(images, BAD_TRUTH),
        not_in_shards=tuple(sorted(subset - set(images["image_id"].to_pylist()))) if subset is not None else (),
        rejected=rejected,
        images_per_second=images_per_second,
    )


def _entries(images: pa.Table, index: ClassIndex) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (E,) image number, (E,) class index and (3, E) pixels of every class in every image."""
    lists = {name: images[name].combine_chunks() for name in ("class_ids", "truth", "predicted", "both")}
    flat = {name: pc.list_flatten(column).to_numpy(zero_copy_only=False) for name, column in lists.items()}
    owner = pc.list_parent_indices(lists["class_ids"]).to_numpy(zero_copy_only=False)
    counts = np.stack([flat["truth"], flat["predicted"], flat["both"]]).astype(np.int64)
    return owner, index(flat["class_ids"]), counts


def _of_state(images: pa.Table, state: str) -> dict[str, str]:
    """Return the reason by id of the images in a state."""
    chosen = images.filter(pc.equal(images["state"], state))
    return dict(zip(chosen["image_id"].to_pylist(), chosen["reason"].to_pylist(), strict=True))


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
