"""Run the shard job: one task per shard that is missing."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from wsss_ray.classes import ClassSet
from wsss_ray.config import RayConfig, ShardConfig
from wsss_ray.datasets.items import Listing
from wsss_ray.datasets.rows import RowMaker
from wsss_ray.datasets.source import SOURCES
from wsss_ray.engine.cluster import connect, connect_for, warn_of_local_paths
from wsss_ray.engine.mapping import map_items
from wsss_ray.engine.outputs import check_output
from wsss_ray.engine.progress import Progress
from wsss_ray.engine.resources import Resources
from wsss_ray.errors import JobError
from wsss_ray.sharding.child import write_in_child
from wsss_ray.sharding.plan import classes_of, directory_of, group_items, identity_of, items_of, notes_of, rules_of
from wsss_ray.sharding.summary import SUMMARY_FILE, ShardSummary, encode_rejected, summarize
from wsss_ray.sharding.writing import ShardReport, ShardTask, ShardWriter
from wsss_ray.shards.image_shards import REJECTED_FILE, find_shard_damage
from wsss_ray.storage.storage import Storage

_STATUS_SECONDS = 5.0
_READERS = 8


def run(config: ShardConfig) -> ShardSummary:
    """Write the image shards of a source, or those that are still missing.

    The output gets `shard-00000-of-00012.parquet` and so on, `rejected.parquet` (images that became no row, with the
    reasons), `shards.json` (the settings that decide the content), `summary.json` and `reports/` (one per shard, for a
    rerun).

    Raises:
        ValueError: the configuration, the source or its tags cannot be used, or the output holds other shards.
        StorageError: a store fails.
        JobError: no image became a row, or a shard's process dies repeatedly.
    """
    check_output(config, job="shard")
    class_set = classes_of(config)
    output = Storage(config.output, config.storage)
    print(f"listing {config.source} {config.input}", flush=True)
    listing = SOURCES.get(config.source)().list_images(config, class_set)
    items = items_of(config, listing)
    groups = group_items(items, target_bytes=config.shard_mb * 1_000_000)
    tasks = [ShardTask(index=index, total=len(groups), items=group) for index, group in enumerate(groups)]
    directory, identity = directory_of(output), identity_of(config, class_set, listing)
    directory.claim(identity, **notes_of(config, class_set))
    output.sweep()

    reports = read_finished(output, tasks)
    missing = [task for task in tasks if task.name not in reports]
    if missing:
        with directory.at_work(identity):
            reports |= _write_missing(config, class_set, listing, missing, done=len(reports))
        _check_written(output, tasks)
    else:
        print(f"nothing to do: all {len(tasks)} shards of {output.uri} are finished.", flush=True)
    everything = [reports[task.name] for task in tasks]
    summary = summarize(everything, listing, class_set, skipped=len(listing.items) - len(items))
    _update(output, REJECTED_FILE, encode_rejected([entry for report in everything for entry in report.rejected]))
    _update(output, SUMMARY_FILE, summary.to_json())
    print(summary, flush=True)
    if not summary.rows:
        raise JobError(_no_rows(summary, output))
    return summary


def read_finished(output: Storage, tasks: Sequence[ShardTask]) -> dict[str, ShardReport]:
    """Return the reports of the finished shards by shard name. A damaged shard is reported and left out.

    Every byte of a shard is compared with the digests in its footer.
    """
    shards, reports = output.list(), output.list("reports")

    def read(task: ShardTask) -> ShardReport | None:
        if task.name not in shards or task.report_path.rpartition("/")[2] not in reports:
            return None
        try:
            report = ShardReport.from_json(output.read(task.report_path), output.describe(task.report_path))
            damage = find_shard_damage(output, task.name)
        except ValueError as error:
            damage = str(error)
        if damage is not None:
            print(f"{task.name} is replaced: {damage}", flush=True)
            return None
        return report

    with ThreadPoolExecutor(_READERS) as pool:
        found = zip(tasks, pool.map(read, tasks), strict=True)
        return {task.name: report for task, report in found if report is not None}


def _check_written(output: Storage, tasks: Sequence[ShardTask]) -> None:
    there = output.list()
    missing = [task.name for task in tasks if task.name not in there]
    if missing:
        raise JobError(
            f"{len(missing)} shards were written, but {output.uri} does not hold them, e.g. {missing[0]}. "
            "On a cluster --output must be on storage that every node shares, or s3://."
        )


def _update(output: Storage, path: str, data: bytes) -> None:
    """Write a file unless it has this content: finished shards may be on storage that cannot be written."""
    try:
        if output.read(path) == data:
            return
    except FileNotFoundError:
        pass
    output.write(path, data)


def _no_rows(summary: ShardSummary, output: Storage) -> str:
    reason = next(iter(summary.reasons), "every image was skipped")
    return (
        f"none of the {summary.images} images became a row; most often: {reason}. "
        f"{output.describe(REJECTED_FILE)} has each one's reason."
    )


def _write_missing(
    config: ShardConfig, class_set: ClassSet, listing: Listing, missing: Sequence[ShardTask], *, done: int
) -> dict[str, ShardReport]:
    """Write the missing shards and return their reports by shard name."""
    rules = rules_of(config, listing)
    output = Storage(config.output, config.storage)
    writer = ShardWriter(
        output=output,
        maker=RowMaker(listing, class_set, rules),
        images_per_unit=config.images_per_unit,
        exif=rules.exif,
        max_pixels=config.max_pixels,
        label_space=class_set.label_space_digest,
        classes=class_set.name,
        skip_untagged=config.untagged == "skip",
    )
    if done:
        print(f"{done} of {done + len(missing)} shards are finished; {len(missing)} to do.", flush=True)
    images = sum(len(task.items) for task in missing)
    progress = Progress(
        total=images,
        done=0,
        every_seconds=_STATUS_SECONDS,
        total_bytes=sum(task.size for task in missing),
        failed_word="rejected",
    )
    reports: dict[str, ShardReport] = {}
    with connect_for(images, config.ray) as resources:
        warn_of_local_paths(resources, listing.images, output)
        if resources is not None:
            return write_shards(writer, missing, config.ray, resources, progress)
        with progress.printing():
            for index, report in write_in_child(writer, missing):
                reports[missing[index].name] = report
                _count(progress, missing[index], report)
    left = [task for task in missing if task.name not in reports]
    if left:
        print(f"{left[0].name}: the process that writes it died; starting Ray to find the image", flush=True)
        with connect(config.ray) as resources:
            reports |= write_shards(writer, left, config.ray, resources, progress)
    return reports


def write_shards(
    writer: ShardWriter, tasks: Sequence[ShardTask], config: RayConfig, resources: Resources, progress: Progress
) -> dict[str, ShardReport]:
    """Write each shard in a Ray task, without the images that kill their process; return the reports by shard name."""
    reports: dict[str, ShardReport] = {}
    names = [task.name for task in tasks]
    with progress.printing():
        for index, report in map_items(
            tasks, writer.write, names=names, config=config, resources=resources, isolate=writer.write_isolated
        ):
            reports[names[index]] = report
            _count(progress, tasks[index], report)
    return reports


def _count(progress: Progress, task: ShardTask, report: ShardReport) -> None:
    progress.add(report.images, failed=len(report.rejected), size=task.size)
