"""Base of the jobs that write one label file for every unit of image shards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import pyarrow as pa

from wsss_ray.config import LabelConfig, PredictConfig
from wsss_ray.engine.cluster import connect, this_machine, uses_cluster, warn_of_local_paths
from wsss_ray.engine.progress import Progress
from wsss_ray.engine.resources import NO_GPUS, Resources, hardware
from wsss_ray.engine.run_directory import RUN_FILE, RunDirectory, units_to_do
from wsss_ray.engine.stage import CALLS_PER_ACTOR, StageSpec
from wsss_ray.engine.task import RunOutcome, UnitTask
from wsss_ray.errors import JobError
from wsss_ray.labels.gpus import forget_gpu
from wsss_ray.labels.observing import observed
from wsss_ray.labels.sink import LabelSink, png_path
from wsss_ray.labels.summary import SUMMARY_FILE, format_summary, summarise, write_summary
from wsss_ray.shards.footers import ShardError, footer_readers
from wsss_ray.shards.image_shards import ShardSet
from wsss_ray.shards.label_files import find_damage, read_label_counts, read_labelled_ids, read_labels
from wsss_ray.shards.units import Unit
from wsss_ray.storage import retries
from wsss_ray.storage.storage import Storage

_SHOWN = 5
"""Lines of one kind to print."""

ConfigT = TypeVar("ConfigT", bound=LabelConfig | PredictConfig)


@dataclass(frozen=True, kw_only=True)
class LabelJob(ABC, Generic[ConfigT]):
    """One call of a job that labels images. A subclass chooses the models."""

    config: ConfigT
    images: Storage
    """Folder of the image shards."""
    shards: ShardSet
    sink: LabelSink

    done_word: ClassVar[str]
    """Participle for a finished image, for messages: "labelled"."""

    @abstractmethod
    def decided(self, *, has_gpus: bool, has_bfloat16: bool) -> LabelJob[ConfigT]:
        """Return the job with devices and precisions in place of `auto`: the actors get what the identity says.

        Args:
            has_gpus: whether the actors have GPUs.
            has_bfloat16: whether these have native bfloat16, as far as it is known.
        """

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return all settings that change labels, as JSON values; device and precision are decided.

        Two runs of equal identity may work on one output.
        """

    @abstractmethod
    def stages(self, resources: Resources) -> tuple[StageSpec, ...]:
        """Return the stages and their pools; ValueError where the cluster can never hold them."""

    @abstractmethod
    def describe_models(self) -> list[str]:
        """Return lines of the plan about the models and their settings."""

    def describe_rows(self, rows: pa.Table) -> list[str]:
        """Return lines, for a dry run, about the input of the models for these image rows; none by default."""
        del rows
        return []

    def check_nodes(self) -> None:
        """Check, in a dry run, that every node can run the job, and print what was found; nothing by default.

        Raises:
            JobError: the job would fail on a node.
        """

    def rows_with_work(self, rows: pa.Table) -> pa.Table:
        """Return the image rows that a model processes; all by default."""
        return rows

    def expected_seconds(self, device: str) -> float | None:
        """Return the seconds that an image should take on a GPU of this name; None (by default) if unknown."""
        del device
        return None

    @property
    def output(self) -> Storage:
        """Run directory."""
        return self.sink.output

    def run(self) -> dict[str, Any]:
        """Make the label files that are missing.

        Returns:
            The summary over all sessions, as `summary.json` holds it; empty for a dry run.

        Raises:
            ValueError: input, output or configuration cannot be used together; nothing was changed.
            JobError: the run was interrupted or units could not be read; finished units are kept.
        """
        retried_before = retries.counted()
        with ExitStack() as stack:
            ray = self.config.ray
            resources = stack.enter_context(connect(ray)) if uses_cluster(ray) else None
            if resources is not None and not resources.gpus and ray.gpus_per_actor is None:
                print(NO_GPUS, flush=True)
            known = resources or this_machine()
            return self.decided(**hardware(ray, known))._run(stack, resources, retried_before)

    def _run(self, stack: ExitStack, resources: Resources | None, retried_before: Counter[str]) -> dict[str, Any]:
        """Do what `run` says, once devices and precisions are decided; `resources` of a cluster that is joined."""
        config, content = self.config, self.identity()
        if not config.dry_run and self.output.exists(RUN_FILE):
            self._claim(content)
        finished, tasks = self._find_work()
        if not tasks and not config.dry_run:
            images = sum(unit.rows for unit in finished)
            print(f"nothing to do: all {images:,} images are {self.done_word}", flush=True)
            return self._finish(None)
        resources = resources or stack.enter_context(connect(config.ray))
        stages = tuple(self._observed(stage) for stage in self.stages(resources))  # refused: nothing has changed
        if not config.dry_run:
            self._claim(content)
            forget_gpu(self.output)
            stack.enter_context(self._directory.at_work(content))
        return self._work(finished, tasks, stages, resources, retried_before)

    def _observed(self, stage: StageSpec) -> StageSpec:
        """Return a stage whose actors are observed; those of a dry run write nothing."""
        config, output = self.config, None if self.config.dry_run else self.output
        return observed(stage, output, profile=config.profile, mixed_gpus=config.mixed_gpus)

    @property
    def _directory(self) -> RunDirectory:
        return RunDirectory(storage=self.output, shards=self.shards)

    def _claim(self, content: dict[str, Any]) -> None:
        """Claim the output or join the run that it holds, and the form of its PNGs."""
        if self._directory.claim(content):
            print(f"started the run in {self.output.uri}", flush=True)
        if self.config.png:
            self.sink.claim_png_form()

    def _find_work(self) -> tuple[list[Unit], tuple[UnitTask, ...]]:
        """Return the finished units and the tasks for the others. A damaged label file counts as missing."""
        if not self.config.dry_run:
            self.output.sweep()
        listed, missing = units_to_do(self.shards, self.output, limit=self.config.limit)
        with ThreadPoolExecutor(footer_readers(self.output)) as pool:
            found = list(pool.map(lambda unit: find_damage(self.output, unit), listed))
        damaged = {unit.name: reason for unit, reason in zip(listed, found, strict=True) if reason is not None}
        for reason in list(damaged.values())[:_SHOWN]:
            print(f"counts as missing: {reason}", flush=True)
        if len(damaged) > _SHOWN:
            print(f"and {len(damaged) - _SHOWN:,} more label files", flush=True)
        finished = [unit for unit in listed if unit.name not in damaged]
        missing = [unit for unit in self.shards.units if unit.name in {*damaged, *(unit.name for unit in missing)}]
        retried = _failed_tasks(self.output, finished) if self.config.retry_failed else ()
        return finished, (*(UnitTask(unit=unit) for unit in missing), *retried)

    def _work(
        self,
        finished: Sequence[Unit],
        tasks: tuple[UnitTask, ...],
        stages: tuple[StageSpec, ...],
        resources: Resources,
        retried_before: Counter[str],
    ) -> dict[str, Any]:
        from wsss_ray.engine.run import run_units  # noqa: PLC0415 - Ray Data: a second that a finished run is spared

        warn_of_local_paths(resources, self.images, self.output)
        done = sum(unit.rows for unit in finished)
        to_do = sum(task.images for task in tasks)
        print("\n".join(self._describe(done, tasks, stages)), flush=True)
        if self.config.dry_run:
            self.check_nodes()
            print("\n".join(self._describe_sample(tasks, stages)), flush=True)
            return {}
        again = sum(task.images for task in tasks if task.version is not None)
        progress = Progress(total=done + to_do - again, done=done - again, every_seconds=self.config.status_seconds)
        retried = retries.counted() - retried_before
        outcome = run_units(tasks, images=self.images, stages=stages, sink=self.sink, progress=progress)
        outcome.retries += retried
        summary = self._finish(outcome)
        if outcome.problems:
            raise JobError(
                f"{len(outcome.problems)} units could not be read, the first: {outcome.problems[0]}\nAll other units "
                f"are {self.done_word}; replace these shards with wsss-ray shard and run the same command again."
            )
        return summary

    def _describe(self, done: int, tasks: Sequence[UnitTask], stages: Sequence[StageSpec]) -> list[str]:
        """Return the plan as lines of text."""
        shards, units = self.shards, len(self.shards.units)
        to_do = sum(task.images for task in tasks)
        queued = sum(min(stage.pool.actors, len(tasks)) * stage.units_per_actor for stage in stages)
        queued_mb = queued * shards.size / max(units, 1) / 1e6
        return [
            f"input     {self.images.uri}: {shards.rows:,} images in {units:,} units, classes of '{shards.classes}'",
            f"output    {self.output.uri}: {', '.join(self.sink.outputs)}",
            *self.describe_models(),
            f"to do     {to_do:,} images in {len(tasks):,} units ({done:,} images are done)",
            *(f"pool      {stage.describe()}" for stage in stages),
            f"in flight at most {queued} units, about {queued_mb:,.1f} MB; decoded at most "
            f"{CALLS_PER_ACTOR * self.config.decoded_mb:,} MB an actor",
        ]

    def _describe_sample(self, tasks: Sequence[UnitTask], stages: Sequence[StageSpec]) -> list[str]:
        if not tasks:
            return [f"nothing to do: all images are {self.done_word}"]
        from wsss_ray.labels.sample import describe_sample  # noqa: PLC0415 - as above

        return describe_sample(
            tasks,
            stages,
            self.images,
            describe_rows=self.describe_rows,
            with_work=self.rows_with_work,
            expected=self.expected_seconds,
        )

    def _finish(self, outcome: RunOutcome | None) -> dict[str, Any]:
        """Write missing PNGs and the summary of all label files, and return the summary."""
        output = self.output
        units, _ = units_to_do(self.shards, output, limit=None)
        if self.config.png:
            _write_missing_pngs(self.sink, units)
        summary = summarise(output, units, outcome, self.sink.classes)
        write_summary(output, summary)
        print(format_summary(summary), flush=True)
        if len(units) < len(self.shards.units):
            rows = sum(unit.rows for unit in units)
            total = f"{rows:,} of {self.shards.rows:,} images"
            more = "; without --limit the run continues" if self.config.limit is not None else ""
            print(f"{total} are {self.done_word}{more}", flush=True)
        failed = summary["statuses"].get("failed", 0)
        if failed:
            print(f"{failed:,} images failed; their rows say why, and --retry-failed runs just those again", flush=True)
        print(f"labels in {output.describe('labels')}, summary in {output.describe(SUMMARY_FILE)}", flush=True)
        return summary


def _write_missing_pngs(sink: LabelSink, units: Sequence[Unit]) -> None:
    """Write the PNGs that an earlier session did not write, or that are lost or empty."""
    there = {name for name, info in sink.output.list("png").items() if info.size}

    def write(unit: Unit) -> None:
        try:
            ids = read_labelled_ids(sink.output, unit)
        except ShardError:  # beyond --limit; the summary counts its images as failed
            return
        missing = {image_id for image_id in ids if png_path(image_id).removeprefix("png/") not in there}
        if missing:
            rows = read_labels(sink.output, unit)
            sink.write_pngs(rows.filter([image_id in missing for image_id in rows["image_id"].to_pylist()]))

    with ThreadPoolExecutor(footer_readers(sink.output)) as pool:
        list(pool.map(write, units))


def _failed_tasks(output: Storage, finished: Sequence[Unit]) -> tuple[UnitTask, ...]:
    """Return tasks for the failed images of finished units, each with the version of the label file that it read."""
    versions = output.list("labels")

    def look(unit: Unit) -> UnitTask | None:
        if not read_label_counts(output, unit).get("statuses", {}).get("failed"):
            return None
        rows = read_labels(output, unit)
        failed = rows.filter([status == "failed" for status in rows["status"].to_pylist()])
        version = versions[unit.label_path.removeprefix("labels/")].version
        return UnitTask(unit=unit, only=tuple(failed["image_id"].to_pylist()), version=version)

    with ThreadPoolExecutor(footer_readers(output)) as pool:
        return tuple(task for task in pool.map(look, finished) if task is not None)
