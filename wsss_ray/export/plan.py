"""What an export will write, fixed before the first file: its format, its units, and the claim on its output."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from wsss_ray.config import ExportConfig
from wsss_ray.export.coco import CocoInstances
from wsss_ray.export.coco_maps import CocoPanoptic, CocoSemantic
from wsss_ray.export.formats import Format, categories
from wsss_ray.export.huggingface import HuggingFace
from wsss_ray.export.records import holds_instances
from wsss_ray.export.sheets import PARTS, Slot
from wsss_ray.export.voc import VocTest, VocTree
from wsss_ray.export.yolo import YoloSeg
from wsss_ray.labels.run import LabelRun
from wsss_ray.storage.storage import Storage

EXPORT_FILE = "export.json"
EXPORT_VERSION = 1
"""Counts changes of the code that change exported files on purpose."""

_FORMATS: dict[str, type[Format]] = {
    form.name: form for form in (VocTree, CocoInstances, CocoPanoptic, CocoSemantic, YoloSeg, HuggingFace, VocTest)
}


def make_format(config: ExportConfig, run: LabelRun) -> Format:
    """The format that the configuration names, checked against the run.

    Raises:
        ValueError: the labels, or this environment, cannot give it.
    """
    form = _FORMATS[config.format](
        classes=run.classes,
        split=config.split,
        copy_images=config.copy_images,
        paint=run.identity.get("fusion", {}).get("paint", "score"),
        polygon_tolerance=config.polygon_tolerance,
    )
    refusal = form.refusal()
    if refusal is not None:
        raise ValueError(refusal)
    if form.needs_instances and holds_instances(run) is False:
        others = ", ".join(name for name, other in _FORMATS.items() if not other.needs_instances)
        raise ValueError(
            f"{run.labels.uri} holds predictions: a network's label maps say which class a pixel has, not which object "
            f"it belongs to, and --format {config.format} needs objects. Use one of {others}, or the labels of "
            "wsss-ray label."
        )
    return form


def identity_of(config: ExportConfig, run: LabelRun) -> dict[str, Any]:
    """Everything that decides the exported files but the label files themselves, as JSON values."""
    table = json.dumps([run.classes.background_id, run.classes.ignore_id, categories(run.classes)])
    return {
        "version": EXPORT_VERSION,
        "format": config.format,
        "split": config.split,
        "copy_images": config.copy_images,
        "polygon_tolerance": config.polygon_tolerance if config.format == "yolo-seg" else None,
        "classes": {"name": run.classes.name, "table": _digest(table)},
        "shards": run.shards.digest,
        "run": _digest(json.dumps(run.identity, sort_keys=True)),
    }


def claim_output(output: Storage, identity: Mapping[str, Any]) -> None:
    """Write the identity into an empty output, or compare it with the one that is there.

    Raises:
        ValueError: the output holds another export (names what differs), or files that are none.
    """
    if not output.exists(EXPORT_FILE) and (output.list() or output.folders()):
        raise ValueError(
            f"{output.uri} is not empty, and holds no export of this job (no {EXPORT_FILE}): give another --output."
        )
    if output.create(EXPORT_FILE, (json.dumps(identity, indent=2) + "\n").encode()):
        return
    try:
        there = json.loads(output.read(EXPORT_FILE))
        differing = [key for key in {**there, **identity} if there.get(key) != identity.get(key)]
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{output.describe(EXPORT_FILE)} is damaged ({error}): give another --output.") from error
    if differing:
        lines = "\n".join(f"  {_difference(key, there.get(key), identity.get(key))}" for key in differing)
        raise ValueError(
            f"{output.uri} holds another export:\n{lines}\nGive another --output, or the options of that export to go "
            "on with it."
        )


def find_slots(run: LabelRun, output: Storage) -> tuple[list[Slot], list[Slot]]:
    """Units of the run with the versions of their label files: all in order, and those still to be exported."""
    versions = run.labels.list("labels")
    slots = [Slot(unit=unit, version=versions[unit.label_path.removeprefix("labels/")].version) for unit in run.units]
    there = {f"{PARTS}/{name}" for name in output.list(PARTS)}
    return slots, [slot for slot in slots if slot.report_path not in there]


def _difference(key: str, there: Any, here: Any) -> str:
    match key:
        case "shards":
            return "shards: its images are other ones"
        case "run":
            return "labels: they are of another run, with other settings"
        case "classes" if isinstance(there, dict) and there.get("name") == here["name"]:
            return f"classes: the names, ids or colours of '{here['name']}' were others"
        case "classes":
            return f"classes: {there.get('name') if isinstance(there, dict) else there} there, {here['name']} asked for"
    return f"{key}: {there} there, {here} asked for"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
