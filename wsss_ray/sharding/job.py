"""Running the shard job: one Ray task per shard, only for shards that are missing."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from wsss_ray.classes import ClassSet
from wsss_ray.config import RayConfig, ShardConfig
from wsss_ray.datasets.items import Listing
from wsss_ray.datasets.rows import RowMaker, RowRules
from wsss_ray.datasets.source import SOURCES
from wsss_ray.engine.cluster import Resources, connect, warn_of_local_paths
from wsss_ray.engine.mapping import map_items
from wsss_ray.engine.progress import Progress
from wsss_ray.errors import JobError
from wsss_ray.images.decoding import ExifRule
from wsss_ray.sharding.plan import claim_output, group_items, identity_of, resolve_exif
from wsss_ray.sharding.summary import SUMMARY_FILE, Summary, encode_rejected, summarise
from wsss_ray.sharding.writing import ShardReport, ShardTask, ShardWriter
from wsss_ray.shards.image_shards import REJECTED_FILE
from wsss_ray.storage.storage import Storage

_STATUS_SECONDS = 5.0


def run(config: ShardConfig) -> Summary:
    """Write the image shards of a source, or those that are still missing.

    The output gets `shard-00000-of-00012.parquet` and so on, `rejected.parquet` (an image that became no row, and why),
    `shards.json` (what decides the content), `summary.json` and `reports/` (one per shard, for a rerun).

    Raises:
        ValueError: the configuration, the source or its tags cannot be used, or the output holds other shards.
        StorageError: a store fails.
        JobError: no image became a row, or a shard's process dies again and again.
    """
    source = SOURCES.get(config.source)()
    class_set = ClassSet.load(config.classes or source.default_classes)
    output = Storage(config.output, config.storage)
    print(f"listing {config.source} {config.input}", flush=True)
    listing = source.list_images(config, class_set)
    items = [item for item in listing.items if item.tags != () or config.untagged == "keep"]
    if not items:
        raise ValueError(f"none of the {len(listing.items)} images has a tag, and untagged ones are to be skipped.")
    groups = group_items(items, target_bytes=config.shard_mb * 1_000_000)
    tasks = [ShardTask(index=index, total=len(groups), items=group) for index, group in enumerate(groups)]
    claim_output(output, identity_of(config, class_set, listing), config, class_set)

    missing = _missing(output, tasks)
    if not missing and output.exists(SUMMARY_FILE):
        summary = Summary.from_json(output.read(SUMMARY_FILE))
        print(f"nothing to do: all {len(tasks)} shards of {output.uri} are finished.\n{summary}", flush=True)
        return _with_rows(summary, output)
    reports: dict[str, ShardReport] = {}
    if missing:
        reports = _write_missing(config, class_set, listing, missing, done=len(tasks) - len(missing))
        _check_written(output, tasks)
    summary = _finish(output, tasks, reports, listing, class_set, skipped=len(listing.items) - len(items))
    print(summary, flush=True)
    return _with_rows(summary, output)


def _missing(output: Storage, tasks: Sequence[ShardTask]) -> list[ShardTask]:
    shards, reports = output.list(), output.list("reports")
    names = {f"reports/{name}" for name in reports}
    return [task for task in tasks if task.name not in shards or task.report_path not in names]


def _check_written(output: Storage, tasks: Sequence[ShardTask]) -> None:
    missing = _missing(output, tasks)
    if missing:
        raise JobError(
            f"{len(missing)} shards were written, but {output.uri} does not hold them, e.g. {missing[0].name}. "
            "On a cluster --output must be on storage that every node shares, or s3://."
        )


def _write_missing(
    config: ShardConfig, class_set: ClassSet, listing: Listing, missing: Sequence[ShardTask], *, done: int
) -> dict[str, ShardReport]:
    """Write the missing shards; their reports by shard name."""
    exif = cast("ExifRule", resolve_exif(config, listing))
    rules = RowRules(
        exif=exif,
        max_pixels=config.max_pixels,
        max_file_bytes=config.max_file_mb * 1_000_000,
        order=config.order,
        crowd=config.crowd,
    )
    output = Storage(config.output, config.storage)
    writer = ShardWriter(
        output=output,
        maker=RowMaker(listing, class_set, rules),
        images_per_unit=config.images_per_unit,
        exif=exif,
        max_pixels=config.max_pixels,
        label_space=class_set.label_space_digest,
        classes=class_set.name,
        skip_untagged=config.untagged == "skip",
    )
    if done:
        print(f"{done} of {done + len(missing)} shards are finished; {len(missing)} to do.", flush=True)
    with connect(config.ray) as resources:
        warn_of_local_paths(resources, listing.images, output)
        progress = Progress(
            total=sum(len(task.items) for task in missing),
            done=0,
            every_seconds=_STATUS_SECONDS,
            total_bytes=sum(task.size for task in missing),
            failed_word="rejected",
        )
        return _run_tasks(writer, missing, config.ray, resources, progress)


def _run_tasks(
    writer: ShardWriter, tasks: Sequence[ShardTask], config: RayConfig, resources: Resources, progress: Progress
) -> dict[str, ShardReport]:
    """Write one shard in each Ray task; return the reports by shard name."""
    reports: dict[str, ShardReport] = {}
    names = [task.name for task in tasks]
    with progress.printing():
        for index, report in map_items(
            tasks, writer.write, names=names, config=config, resources=resources, isolate=writer.write_isolated
        ):
            reports[names[index]] = report
            progress.add(report.images, failed=len(report.rejected), size=tasks[index].size)
    return reports


def _finish(
    output: Storage,
    tasks: Sequence[ShardTask],
    reports: dict[str, ShardReport],
    listing: Listing,
    class_set: ClassSet,
    *,
    skipped: int,
) -> Summary:
    """Join the reports of this run and of earlier ones; write the rejected images, then the summary."""

    def report_of(task: ShardTask) -> ShardReport:
        return reports.get(task.name) or ShardReport.from_json(output.read(task.report_path))

    with ThreadPoolExecutor(16) as pool:
        everything = list(pool.map(report_of, tasks))
    summary = summarise(everything, listing, class_set, skipped=skipped)
    output.write(REJECTED_FILE, encode_rejected([entry for report in everything for entry in report.rejected]))
    output.write(SUMMARY_FILE, summary.to_json())
    return summary


def _with_rows(summary: Summary, output: Storage) -> Summary:
    if not summary.rows:
        reason = next(iter(summary.reasons), "every image was skipped")
        raise JobError(
            f"none of the {summary.images} images became a row; most often: {reason}. "
            f"{output.describe(REJECTED_FILE)} has each one's reason."
        )
    return summary
