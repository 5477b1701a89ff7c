"""The audit of one unit: small sums and the suspicious images, whatever the size of the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from wsss_ray.audit.checks import check_row
from wsss_ray.audit.disagreements import find_disagreements
from wsss_ray.audit.drift import Shares
from wsss_ray.audit.findings import Finding, score
from wsss_ray.classes import ClassSet
from wsss_ray.config import AuditConfig
from wsss_ray.labels.run import read_joined, read_label_rows, truth_of
from wsss_ray.shards.label_row import LabelRow
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage

REASON_TYPE = pa.struct(
    [
        ("kind", pa.string()),
        ("class", pa.string()),
        ("strength", pa.float64()),
        ("value", pa.float64()),
        ("text", pa.string()),
    ]
)
AUDIT_SCHEMA = pa.schema(
    [
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("unit", pa.string(), nullable=False),
        pa.field("reasons", pa.list_(REASON_TYPE), nullable=False),
    ]
)
"""One suspicious image: rank from 1, score from 0 to 1, and the reasons, the clearest first."""

DISAGREEMENTS_SCHEMA = pa.schema(
    [
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("class", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("other", pa.string(), nullable=False),
        pa.field("box", pa.list_(pa.int32(), 4), nullable=False),
        pa.field("pixels", pa.int64(), nullable=False),
        pa.field("share", pa.float64(), nullable=False),
        pa.field("mask_score", pa.float64(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("unit", pa.string(), nullable=False),
    ]
)
"""One region where SAM and the annotator disagree; see `disagreements.Disagreement`."""


@dataclass(kw_only=True)
class UnitAudit:
    """Results of one unit, sent to the driver."""

    statuses: Counter[str] = field(default_factory=Counter)
    with_boxes: int = 0
    """Images whose row has a list of boxes, even an empty one; predictions have null."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Images by kind of finding."""
    classes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Findings by kind and class."""
    shares: Shares = field(default_factory=Shares)
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Images with findings, in AUDIT_SCHEMA but for the rank."""
    disagreements: list[dict[str, Any]] = field(default_factory=list)
    """In DISAGREEMENTS_SCHEMA but for the rank."""
    compared: int = 0
    """Images whose label was compared with a truth."""
    not_compared: dict[str, str] = field(default_factory=dict)
    """Why an image's label or truth could not be used, by image id."""
    damage: str | None = None
    """Why the unit's label file cannot be used: its images are failed."""

    def note_damage(self, reason: str) -> None:
        """Keep the reason."""
        self.damage = reason


@dataclass(frozen=True, kw_only=True)
class Auditor:
    """Audits units. It is pickled to the tasks."""

    images: Storage
    """Folder of the image shards."""
    labels: Storage
    """Run directory."""
    classes: ClassSet
    config: AuditConfig
    threshold: float | None
    """Score above which the run kept boxes."""

    def __call__(self, unit: Unit) -> UnitAudit:
        """Read and audit a unit, one decoded image at a time."""
        audit = UnitAudit()
        if self.config.against_truth:
            columns = ["height", "width", "truth"]
            for image, row in read_joined(
                self.images, self.labels, unit, self.classes, columns=columns, on_damage=audit.note_damage
            ):
                self._add(row, unit, audit)
                self._add_disagreements(image, row, unit, audit)
        else:  # the image shards are needed only where a label file is damaged
            for row in read_label_rows(self.images, self.labels, unit, self.classes, audit.note_damage):
                self._add(row, unit, audit)
        return audit

    def _add(self, row: LabelRow, unit: Unit, audit: UnitAudit) -> None:
        findings, pixels = check_row(row, self.classes, self.config, self.threshold)
        audit.statuses[row.status] += 1
        audit.with_boxes += row.instances is not None
        audit.reasons.update({finding.kind for finding in findings})
        audit.classes.update((finding.kind, finding.class_name) for finding in findings if finding.class_name)
        if not any(finding.kind == "failed" for finding in findings):
            area = row.height * row.width
            audit.shares.add_image({self.classes.by_id[i].name: count / area for i, count in pixels.items()})
        if findings:
            audit.rows.append(
                {
                    "image_id": row.image_id,
                    "score": score(findings),
                    "status": row.status,
                    "unit": unit.name,
                    "reasons": [finding.to_row() for finding in sorted(findings, key=_clearest_first)],
                }
            )

    def _add_disagreements(self, image: Mapping[str, Any], row: LabelRow, unit: Unit, audit: UnitAudit) -> None:
        if row.failed or not row.instances or image["truth"] is None:
            return
        try:
            truth = truth_of(image, self.classes)
            assert truth is not None, "the row has a truth"
            found = find_disagreements(
                row.label_map(),
                truth,
                row.instances,
                self.classes,
                width=self.config.disagreement_width,
                smallest_share=self.config.smallest_disagreement,
            )
        except ValueError as error:  # of this image's label, truth or masks
            audit.not_compared[row.image_id] = str(error)
            return
        audit.compared += 1
        audit.disagreements += [
            {
                "image_id": row.image_id,
                "class": region.class_name,
                **{key: value for key, value in asdict(region).items() if key != "class_name"},
                "unit": unit.name,
            }
            for region in found
        ]


def _clearest_first(finding: Finding) -> float:
    return -score([finding])
