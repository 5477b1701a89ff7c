"""Everything that is fixed before the first file: the format, the units, and the claim of the output."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from wsss_ray.config import ExportConfig
from wsss_ray.export.categories import categories
from wsss_ray.export.exported import PARTS, Slot
from wsss_ray.export.format import EXPORT_FORMATS, ExportFormat
from wsss_ray.export.records import holds_instances
from wsss_ray.labels.run import LabelRun
from wsss_ray.storage.storage import Storage

EXPORT_FILE = "export.json"


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
        paint=run.identity.get("fusion", {}).get("paint", "score"),
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


def identity_of(config: ExportConfig, run: LabelRun, form: ExportFormat) -> dict[str, Any]:
    """Return everything that decides the exported files except the label files, as JSON values."""
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
    }


def claim_output(output: Storage, identity: Mapping[str, Any]) -> None:
    """Write the identity into an empty output, or compare it with the one that the output holds.

    Raises:
        ValueError: the output holds another export (the message names the differences), or other files.
    """
    if not output.exists(EXPORT_FILE) and (output.list() or output.folders()):
        raise ValueError(
            f"{output.uri} is not empty, and holds no export of this job (no {EXPORT_FILE}): give another --output."
        )
    if output.create(EXPORT_FILE, (json.dumps(identity, indent=2) + "\n").encode()):
        return
    try:
        earlier = json.loads(output.read(EXPORT_FILE))
        differing = [key for key in {**earlier, **identity} if earlier.get(key) != identity.get(key)]
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{output.describe(EXPORT_FILE)} is damaged ({error}): give another --output.") from error
    if differing:
        lines = "\n".join(f"  {_difference(key, earlier.get(key), identity.get(key))}" for key in differing)
        raise ValueError(
            f"{output.uri} holds another export:\n{lines}\nGive another --output, or the options of that export to "
            "continue it."
        )


def find_slots(run: LabelRun, output: Storage) -> tuple[list[Slot], list[Slot]]:
    """Return the labelled units with the versions of their label files: all in order, and those not exported yet."""
    versions = run.labels.list("labels")
    slots = [Slot(unit=unit, version=versions[unit.label_path.removeprefix("labels/")].version) for unit in run.units]
    reports = {f"{PARTS}/{name}" for name in output.list(PARTS)}
    return slots, [slot for slot in slots if slot.report_path not in reports]


def _difference(key: str, earlier: Any, new: Any) -> str:
    match key:
        case "shards":
            return "shards: its images are other ones"
        case "run":
            return "labels: they are of another run, with other settings"
        case "classes" if isinstance(earlier, dict) and earlier.get("name") == new["name"]:
            return f"classes: other names, ids or colors of '{new['name']}'"
        case "classes":
            return f"classes: {earlier.get('name') if isinstance(earlier, dict) else earlier} there, {new['name']} now"
    return f"{key}: {earlier} there, {new} now"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
