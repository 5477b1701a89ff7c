"""Plan an export before the first file: its format, its units, and the claim of the output."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from wsss_ray.config import ExportConfig, FusionConfig
from wsss_ray.engine.run_directory import RunDirectory
from wsss_ray.export.categories import categories
from wsss_ray.export.exported import PARTS, Slot
from wsss_ray.export.format import EXPORT_FORMATS, ExportFormat
from wsss_ray.export.records import holds_instances
from wsss_ray.labels.run import LabelRun
from wsss_ray.labels.selection import ImageSelection
from wsss_ray.storage.storage import Storage

EXPORT_FILE = "export.json"
_CHANGES = {
    "shards": "shards: its images are other ones",
    "run": "labels: they are of another run, with other settings",
    "classes.table": "classes: their names, ids or colors differ",
}


def make_format(config: ExportConfig, run: LabelRun) -> ExportFormat:
    """Return the format that the configuration names, checked against the run.

    Raises:
        ValueError: the labels, or this environment, cannot give it.
    """
    has_instances = holds_instances(run) is not False
    form = EXPORT_FORMATS.get(config.format)(
        classes=run.classes,
        split=config.split,
        copy_images=config.copy_images,
        paint=run.identity.get("fusion", {}).get("paint", FusionConfig().paint),
        polygon_tolerance=config.polygon_tolerance,
        has_instances=has_instances,
    )
    refusal = form.refusal()
    if refusal is not None:
        raise ValueError(refusal)
    if form.needs_instances and not has_instances:
        names = EXPORT_FORMATS.names()
        others = ", ".join(name for name in names if not EXPORT_FORMATS.get(name).needs_instances)
        raise ValueError(
            f"{run.labels.uri} holds predictions: a network's label maps give the class of a pixel, not its object, "
            f"and --format {config.format} needs objects. Use one of {others}, or the labels of wsss-ray label."
        )
    return form


def identity_of(config: ExportConfig, run: LabelRun, form: ExportFormat, selection: ImageSelection) -> dict[str, Any]:
    """Return the settings that decide the exported files, beside the label files, as JSON values."""
    table = json.dumps([run.classes.background_id, run.classes.ignore_id, categories(run.classes)])
    return {
        "version": form.version,
        "format": config.format,
        "split": config.split,
        "copy_images": config.copy_images,
        "polygon_tolerance": config.polygon_tolerance if form.draws_polygons else None,
        "classes": {"name": run.classes.name, "table": _digest(table)},
        "shards": run.shards.digest,
        "run": _digest(json.dumps(run.identity, sort_keys=True)),
        **({} if selection.is_everything else {"images": selection.digest}),
    }


def directory_of(output: Storage) -> RunDirectory:
    """Return the output as a directory that belongs to one identity."""
    return RunDirectory(
        storage=output, claim_file=EXPORT_FILE, content="exported files", content_paths=(), explanations=_CHANGES
    )


def find_slots(run: LabelRun, output: Storage) -> tuple[list[Slot], list[Slot]]:
    """Return the labelled units with the versions of their label files: all in order, and those not exported yet."""
    versions = run.labels.list("labels")
    slots = [Slot(unit=unit, version=versions[unit.label_path.removeprefix("labels/")].version) for unit in run.units]
    reports = {f"{PARTS}/{name}" for name in output.list(PARTS)}
    return slots, [slot for slot in slots if slot.report_path not in reports]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
