"""The audit job: rank the images of a run by how suspicious their labels are, without a ground truth."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from wsss_ray.audit.drift import Shares, find_drift
from wsss_ray.audit.findings import NEED_BOXES, WEIGHTS
from wsss_ray.audit.ranking import Ranking
from wsss_ray.audit.unit import AUDIT_SCHEMA, DISAGREEMENTS_SCHEMA, Auditor, UnitAudit
from wsss_ray.config import AuditConfig
from wsss_ray.engine.cluster import connect_for
from wsss_ray.engine.mapping import map_units
from wsss_ray.engine.outputs import check_output
from wsss_ray.engine.progress import Progress
from wsss_ray.labels.run import LabelRun, damage_error
from wsss_ray.shards.schemas import STATUSES
from wsss_ray.shards.units import Unit
from wsss_ray.storage.json_files import encode_json
from wsss_ray.storage.storage import Storage

AUDIT_FILE = "audit.parquet"
DISAGREEMENTS_FILE = "disagreements.parquet"
AUDIT_TABLE, DISAGREEMENTS_TABLE = "audit.csv", "disagreements.csv"
"""The same rows for a spreadsheet."""
SUMMARY_FILE = "audit.json"
UNITS_PER_TASK = 8
"""A unit takes about 3 ms per image, 20 ms against the truth."""
TOP = 10
SHOWN = 100
"""Images that could not be compared, by name in the summary."""


class _Total:
    """Running sums over the units."""

    def __init__(self, config: AuditConfig) -> None:
        self.statuses: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.classes: Counter[tuple[str, str]] = Counter()
        self.with_boxes = 0
        self.shards: defaultdict[str, Shares] = defaultdict(Shares)
        self.images = Ranking(AUDIT_SCHEMA, most=config.most)
        self.disagreements = Ranking(DISAGREEMENTS_SCHEMA, most=config.most)
        self.compared = 0
        self.not_compared = 0
        self.why: dict[str, str] = {}
        self.damaged: dict[str, str] = {}

    def add(self, unit: Unit, audit: UnitAudit) -> None:
        self.statuses.update(audit.statuses)
        self.reasons.update(audit.reasons)
        self.classes.update(audit.classes)
        self.with_boxes += audit.with_boxes
        if audit.damage is not None:
            self.damaged[unit.name] = audit.damage
        self.shards[unit.shard].add(audit.shares)
        self.images.add(audit.rows)
        self.disagreements.add(audit.disagreements)
        self.compared += audit.compared
        self.not_compared += len(audit.not_compared)
        self.why = dict(sorted({**self.why, **audit.not_compared}.items())[:SHOWN])


def run(config: AuditConfig) -> dict[str, Any]:
    """Audit a run and write audit.parquet, audit.json and, against the truth, disagreements.parquet.

    Returns:
        The summary, as in audit.json.

    Raises:
        ValueError: labels, images or classes cannot be used together.
        JobError: an image shard could not be read; or label files are damaged: their images are in the list as failed,
            and everything was written.
    """
    check_output(config, job="audit")
    run = LabelRun.open(labels=config.labels, images=config.images, classes=config.classes, storage=config.storage)
    if config.against_truth and not run.shards.has_truth:
        raise ValueError(
            f"--against-truth: the shards in {run.images.uri} hold no human labels. Make them with a source that has "
            "masks (see wsss-ray shard --help), or leave the flag out."
        )
    output = Storage(config.output, config.storage)
    output.sweep()
    auditor = Auditor(
        images=run.images, labels=run.labels, classes=run.classes, config=config, threshold=run.box_threshold
    )
    total = _Total(config)
    images = sum(unit.rows for unit in run.units)
    progress = Progress(total=images, done=0, every_seconds=config.status_seconds)
    with connect_for(images, config.ray) as resources, progress.printing():
        for index, audit in map_units(
            run.units, auditor, config=config.ray, resources=resources, units_per_task=UNITS_PER_TASK
        ):
            unit = run.units[index]
            total.add(unit, audit)
            progress.add(unit.rows, failed=audit.statuses["failed"])
    summary = _summary(config, run, total)
    output.write(AUDIT_FILE, total.images.to_parquet())
    output.write(AUDIT_TABLE, total.images.to_csv())
    if config.against_truth:
        output.write(DISAGREEMENTS_FILE, total.disagreements.to_parquet())
        output.write(DISAGREEMENTS_TABLE, total.disagreements.to_csv())
    output.write(SUMMARY_FILE, encode_json(summary))
    print(format_summary(summary), flush=True)
    print(f"ranked list in {output.describe(AUDIT_FILE)} and {AUDIT_TABLE}", flush=True)
    print(f"summary in {output.describe(SUMMARY_FILE)}", flush=True)
    if (error := damage_error(total.damaged)) is not None:
        raise error
    return summary


def _summary(config: AuditConfig, run: LabelRun, total: _Total) -> dict[str, Any]:
    """Return the counts of all images, the checks that were skipped, and the top of the lists, as JSON values."""
    images = total.statuses.total()
    skipped = [kind for kind in NEED_BOXES if total.with_boxes == 0]
    if run.box_threshold is None and "near_threshold" not in skipped:
        skipped.append("near_threshold")
    settings = ("largest_share", "smallest_share", "same_object_iou", "low_mask_score", "near_threshold", "drift")
    summary: dict[str, Any] = {
        "labels": run.labels.uri,
        "images": images,
        "unlabelled": sum(unit.rows for unit in run.missing),
        "statuses": {status: total.statuses[status] for status in STATUSES if total.statuses[status]},
        "damaged_label_files": dict(sorted(total.damaged.items())),
        "suspicious": total.images.seen,
        "reasons": {kind: total.reasons[kind] for kind in WEIGHTS if kind not in skipped},
        "not_judged": skipped,
        "classes": _by_class(total.classes, run.classes.names),
        "drift": [dataclasses.asdict(drift) for drift in find_drift(total.shards, limit=config.drift)],
        "box_threshold": run.box_threshold,
        "settings": {name: getattr(config, name) for name in settings},
        "weights": dict(WEIGHTS),
        "top": total.images.rows()[:TOP],
    }
    if config.against_truth:
        summary["against_truth"] = {
            "compared": total.compared,
            "not_compared": total.not_compared,
            "why_not": total.why,
            "disagreements": total.disagreements.seen,
            "disagreement_width": config.disagreement_width,
            "smallest_disagreement": config.smallest_disagreement,
            "top": total.disagreements.rows()[:TOP],
        }
    return summary


def _by_class(counts: Counter[tuple[str, str]], names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return the images of each reason by class, in the class set's order."""
    by_class = {name: {kind: counts[kind, name] for kind in WEIGHTS if counts[kind, name]} for name in names}
    return {name: kinds for name, kinds in by_class.items() if kinds}


def format_summary(summary: dict[str, Any]) -> str:
    """Return the tables at the end of an audit: images per reason, drift, and the top of the lists."""
    lines = [f"{'reason':<20}  images"]
    lines += [f"{kind:<20}  {count:>6,}" for kind, count in summary["reasons"].items()]
    lines.append(f"{summary['suspicious']:,} of {summary['images']:,} images are suspicious")
    if summary["not_judged"]:
        why = "the run holds no boxes" if "same_object" in summary["not_judged"] else "its threshold is not known"
        lines.append(f"not checked, as {why}: {', '.join(summary['not_judged'])}")
    for reason in list(summary["damaged_label_files"].values())[:TOP]:
        lines.append(f"all images of a unit failed: {reason}")
    if summary["unlabelled"]:
        lines.append(f"{summary['unlabelled']:,} images have no label yet")
    for drift in summary["drift"][:TOP]:
        lines.append(
            f"drift  {drift['shard']}: {drift['class_name']} covers {drift['share']:.2%} of an image on average, "
            f"{drift['mean']:.2%} over all shards (z {drift['z']:+.1f})"
        )
    if summary["top"]:
        lines.append("rank  score  image")
    for row in summary["top"]:
        lines.append(f"{row['rank']:>4}  {row['score']:.3f}  {row['image_id']}: {row['reasons'][0]['text']}")
    compared = summary.get("against_truth")
    if compared:
        lines.append(
            f"{compared['disagreements']:,} regions in {compared['compared']:,} images where SAM and the human label "
            "disagree"
        )
        for row in compared["top"]:
            lines.append(
                f"{row['rank']:>4}  {row['score']:.3f}  {row['image_id']}: {_describe(row)}; {row['pixels']:,} pixels "
                f"in {tuple(row['box'])}"
            )
        if compared["not_compared"]:
            lines.append(f"{compared['not_compared']:,} images could not be compared; {SUMMARY_FILE} says why")
    return "\n".join(lines)


def _describe(region: dict[str, Any]) -> str:
    if region["kind"] == "sam_only":
        return f"SAM says {region['class']}, the truth {region['other']}"
    return f"the truth says {region['class']}, SAM {region['other']}"
