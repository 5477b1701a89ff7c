"""The export job: read label files, write the formats that other tools read."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wsss_ray.config import ExportConfig
from wsss_ray.engine.cluster import connect_for, warn_of_local_paths
from wsss_ray.engine.mapping import map_units
from wsss_ray.engine.outputs import check_output
from wsss_ray.engine.progress import Progress
from wsss_ray.errors import JobError
from wsss_ray.export.exported import ExportedUnits, Slot
from wsss_ray.export.format import ExportFormat
from wsss_ray.export.plan import directory_of, find_slots, identity_of, make_format
from wsss_ray.export.records import RecordReader
from wsss_ray.export.summary import SUMMARY_FILE, ExportSummary, state_of, summarize
from wsss_ray.export.unit_output import UnitOutput
from wsss_ray.labels.inputs import ids_by_shard
from wsss_ray.labels.run import LabelRun, damage_error
from wsss_ray.labels.selection import ImageSelection
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Export:
    """A prepared export: call `writer` on every unit of `todo` in any order, then `finish`."""

    run: LabelRun
    format_name: str
    form: ExportFormat
    selection: ImageSelection
    output: Storage
    slots: tuple[Slot, ...]
    """All labelled units, in order."""
    todo: tuple[Slot, ...]
    """Those that are not exported yet, or were labelled again since."""
    identity: dict[str, Any]
    """The settings that the output was claimed for."""

    @classmethod
    def prepare(cls, config: ExportConfig) -> Export:
        """Check the configuration, claim the output and find the units to export.

        Raises:
            ValueError: labels, images, format and output do not fit together; nothing was written.
        """
        check_output(config, job="export")
        run = LabelRun.open(labels=config.labels, images=config.images, classes=config.classes, storage=config.storage)
        form = make_format(config, run)
        selection = ImageSelection.read(only=config.only, exclude=config.exclude, storage=config.storage)
        if not selection.is_everything:
            ids = itertools.chain.from_iterable(ids for _, ids in ids_by_shard(run.images, run.shards))
            if absent := selection.check_named(ids):
                print(f"{absent:,} ids of --only or --exclude are not in the image shards", flush=True)
        output = Storage(config.output, config.storage)
        identity = identity_of(config, run, form, selection)
        directory_of(output).claim(identity)
        output.sweep()
        slots, todo = find_slots(run, output)
        return cls(
            run=run,
            format_name=config.format,
            form=form,
            selection=selection,
            output=output,
            slots=tuple(slots),
            todo=tuple(todo),
            identity=identity,
        )

    @property
    def writer(self) -> UnitWriter:
        """Writer of the units of `todo`."""
        reader = RecordReader(
            images=self.run.images,
            labels=self.run.labels,
            classes=self.run.classes,
            reads_images=self.form.reads_images,
            selection=self.selection,
        )
        slots = {slot.unit.name: slot for slot in self.todo}
        return UnitWriter(form=self.form, reader=reader, output=self.output, slots=slots)

    def earlier_summary(self) -> ExportSummary | None:
        """Return the summary of an earlier call that finished with the present label files, or None."""
        if self.todo or not self.output.exists(SUMMARY_FILE):
            return None
        try:
            summary = ExportSummary.from_json(self.output.read(SUMMARY_FILE), self.output.describe(SUMMARY_FILE))
        except ValueError as error:
            _LOG.warning("%s It is written again.", error)
            return None
        return summary if summary.state == state_of(self.slots, self.run.missing) else None

    def finish(self) -> ExportSummary:
        """Join the units' parts, and write the summary, which marks the export as complete.

        Raises:
            JobError: no image could be exported, or units are missing.
        """
        _, missing = find_slots(self.run, self.output)
        if missing:
            raise JobError(
                f"{len(missing)} units were written, but {self.output.uri} does not hold them, e.g. "
                f"{missing[0].report_path}. On a cluster --output must be on storage that every node shares, or s3://. "
                "If label files are still changing, run this command again when they do not."
            )
        exported = ExportedUnits(output=self.output, slots=self.slots)
        summary = summarize(exported, format_name=self.format_name, split=self.form.split, missing=self.run.missing)
        if summary.images:
            notes = self.form.finish(dataclasses.replace(exported, counts=Counter(summary.counts)))
            summary = dataclasses.replace(summary, notes=tuple(notes))
        self.output.write(SUMMARY_FILE, summary.to_json())
        if not summary.images:
            raise JobError(f"no image could be exported.\n{summary}")
        return summary


@dataclass(frozen=True, kw_only=True)
class UnitWriter:
    """Writer of single units. It is pickled to Ray tasks."""

    form: ExportFormat
    reader: RecordReader
    output: Storage
    slots: dict[str, Slot]
    """By name of the unit."""

    def __call__(self, unit: Unit) -> int:
        """Write the unit's files, then its part, then its report, and return how many images were left out.

        The same rows give the same bytes.
        """
        slot = self.slots[unit.name]
        with UnitOutput(unit=unit, storage=self.output) as output:
            self.form.write(output.count(self.reader.read(unit, output.note_damage)), output)
        if self.form.has_parts:
            self.output.write(slot.part_path, output.part.getvalue())
        exported = dataclasses.replace(output.exported, part_sha256=hashlib.sha256(output.part.getvalue()).hexdigest())
        self.output.write(slot.report_path, exported.to_json())
        return len(output.left_out)


def run(config: ExportConfig) -> ExportSummary:
    """Export the labels of a run, or the units that an earlier call left.

    The output holds the format's files, `export.json` (the settings that decide them), `export-summary.json`
    (counts, and the images that are left out) and `export-parts/` (from which a rerun continues).

    Raises:
        ValueError: labels, images, format and output do not fit together; nothing was written.
        StorageError: a store fails.
        JobError: the export broke off, no image could be exported, or label files are damaged.
    """
    export = Export.prepare(config)
    summary = export.earlier_summary()
    if summary is not None:
        print(f"nothing to do: {export.output.uri} holds this export.\n{summary}", flush=True)
    else:
        if export.todo:
            with directory_of(export.output).at_work(export.identity):
                _write_units(export, export.todo, config)
        summary = export.finish()
        print(
            f"{summary}\n{config.format} in {export.output.uri}, summary in {export.output.describe(SUMMARY_FILE)}",
            flush=True,
        )
    damage = damage_error(summary.damaged)
    if damage is not None:
        raise damage
    return summary


def _write_units(export: Export, todo: Sequence[Slot], config: ExportConfig) -> None:
    units = [slot.unit for slot in todo]
    total = sum(slot.unit.rows for slot in export.slots)
    done = total - sum(unit.rows for unit in units)
    print(
        f"{config.format}: {total - done:,} images in {len(units):,} units to do ({done:,} images are done)", flush=True
    )
    progress = Progress(total=total, done=done, every_seconds=config.status_seconds)
    with connect_for(total - done, config.ray) as resources:
        warn_of_local_paths(resources, export.output, export.run.labels, export.run.images)
        try:
            with progress.printing():
                for index, left_out in map_units(units, export.writer, config=config.ray, resources=resources):
                    progress.add(units[index].rows, failed=left_out)
        except JobError as error:
            raise JobError(f"{error}\nFinished units are kept; the same command continues from there.") from error
