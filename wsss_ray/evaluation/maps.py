"""Evaluate label maps in memory or in PNG files, without image shards, a run or Ray."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from wsss_ray.classes import ClassSet
from wsss_ray.evaluation.boundary import DEFAULT_RATIO
from wsss_ray.evaluation.image import ImageEvaluator
from wsss_ray.evaluation.result import Evaluation, conclude
from wsss_ray.evaluation.tally import FAILED, IMAGES_SCHEMA, MISSING, Tally
from wsss_ray.evaluation.truths import Truth
from wsss_ray.images.header import ImageError
from wsss_ray.images.label_png import decode_ids
from wsss_ray.labels.scores import ClassIndex
from wsss_ray.shards.label_row import LabelRow

ImageLabel = np.ndarray | str | Path
"""(H, W) class ids, or the path of a label PNG."""


@runtime_checkable
class Labelled(Protocol):
    """A labelled image, as `Labeller.label` returns it."""

    row: LabelRow
    classes: ClassSet


def evaluate_maps(
    labels: Iterable[ImageLabel | Labelled | None],
    truths: Iterable[ImageLabel],
    *,
    classes: ClassSet | str | None = None,
    boundary_ratio: float | None = DEFAULT_RATIO,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Evaluate label maps against truths, by the rules of `wsss-ray evaluate`.

    >>> evaluation = evaluate_maps([label], [truth], classes="voc")
    >>> evaluation.miou, evaluation.headline

    Without tags, the recall of tagged classes and objects is not computed. A label of another size than its truth, or
    with unknown ids, counts as a failed image.

    Args:
        labels: label maps or labelled images in the order of the truths; None where an image has no label.
        truths: truths; pixels of ignore are left out.
        classes: class set, or its name or file. Unset: that of the labelled images.
        boundary_ratio: width of the boundary regions as a share of the diagonal; None: no boundary IoU.
        bootstrap: resamples of images for the interval of the mIoU; 0: no interval.
        seed: seed of the resampling.

    Raises:
        ValueError: there is no truth, a truth cannot be read, the numbers of labels and truths differ, or the class set
            is not known.
    """
    labels, truths = list(labels), list(truths)
    if len(labels) != len(truths):
        raise ValueError(f"there are {len(labels)} labels and {len(truths)} truths: give one truth per label.")
    if not labels:
        raise ValueError("there is no label map to evaluate.")
    class_set = _class_set(classes, labels)
    palette = class_set.palette() if class_set.label_dtype is np.uint8 else None
    index = ClassIndex.of(class_set)
    evaluator = ImageEvaluator(
        index=index, ignore_id=class_set.ignore_id, boundary_ratio=boundary_ratio, smallest_object=None
    )
    tally = Tally.zero(index.count)
    rows = []
    for number, (label, truth) in enumerate(zip(labels, truths, strict=True)):
        known = Truth(label=_read(truth, palette), objects=None)
        size = (known.label.shape[0], known.label.shape[1])
        if isinstance(label, Labelled) and label.row.failed:
            prediction = evaluator.no_label(size, FAILED, label.row.error)
        elif label is None:
            prediction = evaluator.no_label(size, MISSING)
        else:
            try:
                prediction = evaluator.predict(_read(label, palette), size)
            except ImageError as error:
                prediction = evaluator.no_label(size, FAILED, str(error))
        rows.append(evaluator.add(_name(truth, number), (), known, prediction, tally))
    return conclude(
        tally,
        pa.Table.from_pylist(rows, schema=IMAGES_SCHEMA),
        index,
        class_set=class_set.name,
        boundary=boundary_ratio is not None,
        resamples=bootstrap,
        seed=seed,
    )


def _class_set(classes: ClassSet | str | None, labels: Sequence[ImageLabel | Labelled | None]) -> ClassSet:
    if classes is not None:
        return classes if isinstance(classes, ClassSet) else ClassSet.load(classes)
    found = next((label.classes for label in labels if isinstance(label, Labelled)), None)
    if found is None:
        raise ValueError('label maps do not say their classes: give classes="voc", another class set, or its file.')
    return found


def _read(label: ImageLabel | Labelled, palette: bytes | None) -> np.ndarray:
    """Return (H, W) uint8 or uint16 class ids.

    Raises:
        ImageError: it is no label map; an ImageError is a ValueError.
    """
    if isinstance(label, Labelled):
        return label.row.label_map()
    if not isinstance(label, np.ndarray | str | Path):
        raise ImageError(f"a label is {type(label).__name__}: give an array, a path, or a labelled image")
    if isinstance(label, np.ndarray):
        if label.ndim != 2 or not np.issubdtype(label.dtype, np.integer):
            raise ImageError(f"a label map is (H, W) of integers, not {label.shape} {label.dtype}")
        if label.size and not (label.min() >= 0 and label.max() <= np.iinfo(np.uint16).max):
            raise ImageError("a label map holds class ids from 0 to 65,535")
        return label if label.dtype in (np.uint8, np.uint16) else label.astype(np.uint16)
    try:
        return decode_ids(Path(label).read_bytes(), palette=palette)
    except (OSError, ImageError) as error:
        raise ImageError(f"{label}: {error}") from error


def _name(truth: ImageLabel, number: int) -> str:
    return str(number) if isinstance(truth, np.ndarray) else Path(truth).stem
