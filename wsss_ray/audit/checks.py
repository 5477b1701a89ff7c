"""Checks of the label of one image, without a ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from wsss_ray.audit.findings import Finding
from wsss_ray.classes import ClassSet
from wsss_ray.config import AuditConfig
from wsss_ray.images.rle import mask_overlaps
from wsss_ray.shards.instance import Instance
from wsss_ray.shards.label_row import LabelRow


@dataclass(frozen=True, kw_only=True, eq=False)
class Boxes:
    """The instances of an image, as arrays."""

    boxes: np.ndarray
    """(N, 4) float64 XYXY pixels."""
    class_ids: np.ndarray
    """(N,) int."""
    scores: np.ndarray
    """(N,) float64 detector scores."""
    mask_scores: np.ndarray
    """(N,) float64 IoU that SAM predicts for its masks."""
    masks: Sequence[bytes]
    """N RLE counts."""

    @classmethod
    def of(cls, instances: Sequence[Instance]) -> Boxes:
        """Return the arrays of an image's instances."""
        return cls(
            boxes=np.array([instance.box for instance in instances], np.float64).reshape(-1, 4),
            class_ids=np.array([instance.class_id for instance in instances], np.int64),
            scores=np.array([instance.score for instance in instances], np.float64),
            mask_scores=np.array([instance.mask_score for instance in instances], np.float64),
            masks=[instance.counts for instance in instances],
        )


def count_classes(label: np.ndarray, classes: ClassSet) -> dict[int, int]:
    """Return the pixels of each class in a (H, W) label map; background, ignore and unknown ids are left out."""
    ids, pixels = np.unique(label, return_counts=True)
    return {int(i): int(n) for i, n in zip(ids, pixels, strict=True) if int(i) in classes.by_id}


def check_row(
    row: LabelRow, classes: ClassSet, config: AuditConfig, threshold: float | None
) -> tuple[list[Finding], dict[int, int]]:
    """Return the findings of one label row.

    Args:
        row: its tags and instances are of the classes.
        classes: names of the ids.
        config: what counts as suspicious.
        threshold: score above which the run kept boxes; None: not known, and nothing is near it.

    Returns:
        Findings, and pixels by class id (empty for a failed image, or one whose row is damaged).
    """
    if row.failed:
        return [Finding(kind="failed", strength=1.0, text=f"failed: {row.error or 'the row has no label'}")], {}
    try:
        return _check(row, classes, config, threshold)
    except ValueError as error:
        return [Finding(kind="failed", strength=1.0, text=f"cannot be used: {error}")], {}


def _check(
    row: LabelRow, classes: ClassSet, config: AuditConfig, threshold: float | None
) -> tuple[list[Finding], dict[int, int]]:
    pixels = count_classes(row.label_map(), classes)
    findings = [*_check_tags(row, classes, pixels), *_check_shares(row, classes, config, pixels)]
    if row.instances:
        boxes = Boxes.of(row.instances)
        findings += _check_objects(row, boxes, classes, config)
        findings += _check_masks(boxes, classes, config)
        if threshold is not None:
            findings += _check_scores(boxes, classes, config, threshold)
    return findings, pixels


def _check_tags(row: LabelRow, classes: ClassSet, pixels: Mapping[int, int]) -> list[Finding]:
    boxed = {instance.class_id for instance in row.instances or ()}
    findings = []
    for tag in row.tags:
        class_id = classes.by_name[tag].id
        if class_id not in pixels:
            if row.instances is None:
                text = f"{tag} is tagged and has no pixel"
            elif class_id in boxed:
                text = f"{tag} is tagged and has boxes, but no pixel: other masks cover it, or its masks are empty"
            else:
                text = f"{tag} is tagged, and no box was found for it"
            findings.append(Finding(kind="tag_without_pixels", class_name=tag, strength=1.0, value=0.0, text=text))
    return findings


def _check_shares(row: LabelRow, classes: ClassSet, config: AuditConfig, pixels: Mapping[int, int]) -> list[Finding]:
    findings = []
    for class_id, count in pixels.items():
        name = classes.by_id[class_id].name
        share = count / (row.height * row.width)
        if share > config.largest_share:
            strength = (share - config.largest_share) / (1 - config.largest_share)
            text = f"{name} covers {share:.1%} of the image"
            findings.append(Finding(kind="covers_most", class_name=name, strength=strength, value=share, text=text))
        elif share < config.smallest_share:
            text = f"{name} covers {share:.3%} of the image, {count} pixels in all"
            strength = 1 - share / config.smallest_share
            findings.append(Finding(kind="covers_little", class_name=name, strength=strength, value=share, text=text))
    return findings


def box_overlaps(boxes: np.ndarray) -> np.ndarray:
    """Return the (N, N) float64 IoU of all pairs of (N, 4) XYXY boxes; 0 where both are empty."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=-1)
    area = np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=-1)
    union = area[:, None] + area[None, :] - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def _check_objects(row: LabelRow, found: Boxes, classes: ClassSet, config: AuditConfig) -> list[Finding]:
    """Find boxes of different classes whose boxes or masks overlap more than the limit, one pair per two classes.

    The strength is the mean IoU of boxes and masks: two objects may share a box, but one object with two
    classes also shares its mask. Pairs whose boxes overlap less than half of the limit are not compared further.
    """
    limit = config.same_object_iou
    by_box = box_overlaps(found.boxes)
    by_box[found.class_ids[:, None] == found.class_ids[None, :]] = 0
    near = np.flatnonzero((by_box > limit / 2).any(axis=0))
    by_mask = np.zeros_like(by_box)
    by_mask[np.ix_(near, near)] = mask_overlaps([found.masks[int(index)] for index in near], row.height, row.width)
    pairs = np.argwhere(np.triu((by_box > limit / 2) & (np.maximum(by_box, by_mask) > limit)))
    strongest: dict[tuple[int, int], Finding] = {}
    for first, second in pairs:
        ids = sorted((int(found.class_ids[first]), int(found.class_ids[second])))
        names = tuple(classes.by_id[class_id].name for class_id in ids)
        scores = [
            found.scores[index] for index in sorted((first, second), key=lambda index: int(found.class_ids[index]))
        ]
        boxes, masks = by_box[first, second], by_mask[first, second]
        finding = Finding(
            kind="same_object",
            class_name=names[0],
            strength=float((boxes + masks) / 2),
            value=float(max(boxes, masks)),
            text=f"{names[0]} ({scores[0]:.2f}) and {names[1]} ({scores[1]:.2f}) on one object: IoU {boxes:.2f} of "
            f"the boxes, {masks:.2f} of the masks",
        )
        key = (ids[0], ids[1])
        if key not in strongest or finding.strength > strongest[key].strength:
            strongest[key] = finding
    return list(strongest.values())


def _check_masks(found: Boxes, classes: ClassSet, config: AuditConfig) -> list[Finding]:
    """Find, per class, masks with a low predicted IoU; the strength is the distance of the lowest from the limit."""
    findings = []
    limit = config.low_mask_score
    for class_id, indices in _by_class(found.class_ids, (found.mask_scores < limit) & (limit > 0)):
        name = classes.by_id[class_id].name
        lowest = float(found.mask_scores[indices].min())
        all_masks = int((found.class_ids == class_id).sum())
        text = (
            f"{name}: SAM predicts an IoU below {limit:g} for {len(indices)} of {all_masks} masks, lowest {lowest:.2f}"
        )
        strength = min(1.0, (limit - lowest) / limit)
        findings.append(Finding(kind="low_mask_score", class_name=name, strength=strength, value=lowest, text=text))
    return findings


def _check_scores(found: Boxes, classes: ClassSet, config: AuditConfig, threshold: float) -> list[Finding]:
    """Find, per class, boxes just above the threshold; the strength is how near the lowest is to it."""
    findings = []
    reach = config.near_threshold
    for class_id, indices in _by_class(found.class_ids, (found.scores < threshold + reach) & (reach > 0)):
        name = classes.by_id[class_id].name
        lowest = float(found.scores[indices].min())
        all_boxes = int((found.class_ids == class_id).sum())
        text = (
            f"{name}: {len(indices)} of {all_boxes} boxes score less than {reach:g} above the threshold {threshold:g}, "
            f"lowest {lowest:.3f}"
        )
        strength = min(1.0, max(0.0, 1 - (lowest - threshold) / reach))
        findings.append(Finding(kind="near_threshold", class_name=name, strength=strength, value=lowest, text=text))
    return findings


def _by_class(class_ids: np.ndarray, chosen: np.ndarray) -> list[tuple[int, list[int]]]:
    """Return the indices of the chosen instances by class id."""
    indices = sorted(np.flatnonzero(chosen).tolist(), key=lambda index: int(class_ids[index]))
    return [(class_id, list(group)) for class_id, group in groupby(indices, key=lambda index: int(class_ids[index]))]
