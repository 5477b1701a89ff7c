"""The tables of an evaluation as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from wsss_ray.evaluation.result import ClassResult, Evaluation

_SHOWN = 5
_COLUMNS = ("IoU", "precision", "recall", "boundary", "found", "objects", "pixels", "images")


def format_tables(evaluation: Evaluation) -> str:
    """Return the table of the classes, the summary and the headline."""
    width = max(5, *(len(entry.name) for entry in evaluation.classes))
    lines = [f"{'class':<{width}}  " + "  ".join(f"{name:>{_width(name)}}" for name in _COLUMNS)]
    lines += [f"{entry.name:<{width}}  " + "  ".join(_cells(entry)) for entry in evaluation.classes]
    present = sum(entry.pixels > 0 for entry in evaluation.classes)
    lines += [
        "",
        f"means over the {present} of {len(evaluation.classes)} classes present in the truth, background included; "
        "in %",
        f"pixel accuracy {_percent(evaluation.pixel_accuracy)}, mean accuracy {_percent(evaluation.mean_accuracy)}, "
        f"frequency-weighted IoU {_percent(evaluation.frequency_weighted_iou)}, "
        f"boundary IoU {_percent(evaluation.boundary_iou)}",
        _format_tagged(evaluation),
        *_format_objects(evaluation),
        f"dropped: mIoU {_percent(evaluation.dropped_miou)} without the pixels that have no predicted class, "
        f"coverage {_percent(evaluation.coverage, places=2)}",
        *_format_problems(evaluation),
        "",
        evaluation.headline,
    ]
    return "\n".join(lines)


def _width(column: str) -> int:
    return {"pixels": 14, "found": 9, "objects": 11}.get(column, max(7, len(column)))


def _cells(entry: ClassResult) -> Iterable[str]:
    found = f"{entry.found}/{entry.tagged}" if entry.tagged else "-"
    shares = (entry.iou, entry.precision, entry.recall, entry.boundary_iou)
    objects = f"{entry.recalled}/{entry.objects}" if entry.objects else "-"
    texts = (*(_percent(share) for share in shares), found, objects, f"{entry.pixels:,}", f"{entry.images:,}")
    return (f"{text:>{_width(name)}}" for name, text in zip(_COLUMNS, texts, strict=True))


def _percent(share: float, *, places: int = 1) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.{places}f}"


def _format_tagged(evaluation: Evaluation) -> str:
    tagged = sum(entry.tagged for entry in evaluation.classes)
    absent = sum(entry.tagged_without_truth for entry in evaluation.classes)
    beside = f"; {absent:,} more tags have no pixel in the truth" if absent else ""
    share = _percent(evaluation.tagged_class_recall)
    return f"tagged classes found in their image (IoU >= 50): {share} of {tagged:,}{beside}"


def _format_objects(evaluation: Evaluation) -> Iterable[str]:
    if evaluation.instance_rule is not None:
        objects = sum(entry.objects for entry in evaluation.classes)
        share = _percent(evaluation.instance_recall)
        yield f"tagged objects with a mask of their own (IoU >= 50): {share} of {objects:,}; {evaluation.instance_rule}"


def _format_problems(evaluation: Evaluation) -> Iterable[str]:
    """Return a line for each kind of image that was not evaluated by its label."""
    if evaluation.missing:
        yield _list_ids(evaluation.missing, "without a label, counted as no class")
    if evaluation.skipped:
        yield _list_ids(evaluation.skipped, "without a label, skipped")
    if evaluation.failed:
        yield _list_reasons(evaluation.failed, "with a failed label, counted as no class")
    if evaluation.no_truth:
        yield _list_ids(evaluation.no_truth, "without a truth, not evaluated")
    if evaluation.bad_truth:
        yield _list_reasons(evaluation.bad_truth, "with a bad truth, not evaluated")
    if evaluation.not_in_shards:
        yield _list_ids(evaluation.not_in_shards, "of the subset, not in the image shards, not evaluated")
    if evaluation.rejected:
        yield f"{_count_images(evaluation.rejected)} rejected by wsss-ray shard, not evaluated (rejected.parquet)"
    if evaluation.unknown_truth_pixels:
        yield f"{evaluation.unknown_truth_pixels:,} pixels of the truth are neither a class nor ignore: left out"


def _count_images(count: int) -> str:
    return f"{count:,} image{'s' * (count != 1)}"


def _list_ids(ids: tuple[str, ...], what: str) -> str:
    more = ", ..." if len(ids) > _SHOWN else ""
    return f"{_count_images(len(ids))} {what}: {', '.join(ids[:_SHOWN])}{more}"


def _list_reasons(reasons: Mapping[str, str], what: str) -> str:
    shown = [f"  {image_id}: {reason}" for image_id, reason in list(reasons.items())[:_SHOWN]]
    more = ["  ..."] if len(reasons) > _SHOWN else []
    return "\n".join([f"{_count_images(len(reasons))} {what}:", *shown, *more])
