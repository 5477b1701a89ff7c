"""Running the shard job: one Ray task per shard, only for shards that are missing."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayTaskError, WorkerCrashedError

from wsss_ray.classes import ClassSet
from wsss_ray.config import ShardConfig
from wsss_ray.datasets.items import Item, Listing
from wsss_ray.datasets.rows import RowMaker, RowRules
from wsss_ray.datasets.source import SOURCES
from wsss_ray.engine.cluster import Resources, connect, warn_of_local_paths
from wsss_ray.errors import JobError
from wsss_ray.images.decoding import ExifRule
from wsss_ray.sharding.plan import claim_output, group_items, identity_of, resolve_exif
from wsss_ray.sharding.progress import Progress
from wsss_ray.sharding.summary import SUMMARY_FILE, Summary, encode_rejected, summarise
from wsss_ray.sharding.writing import ShardReport, ShardTask, ShardWriter
from wsss_ray.shards.image_shards import REJECTED_FILE
from wsss_ray.storage import retries
from wsss_ray.storage.storage import Storage

_STATUS_SECONDS = 5.0
_PROBES = 2
_ROUNDS = 3
"""Times that a shard is tried again after its process died, and Ray's own retry too."""
_DEATHS = (WorkerCrashedError, OutOfMemoryError, NodeDiedError)


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
        _check_cluster(config, listing, output, resources)
        return _run_tasks(writer, missing, resources, Progress(missing))


def _check_cluster(config: ShardConfig, listing: Listing, output: Storage, resources: Resources) -> None:
    if resources.cpus < 1 and not config.ray.wait_for_nodes:
        raise ValueError("the cluster has no core: add a node, or give --ray.wait-for-nodes for an autoscaler's.")
    warn_of_local_paths(resources, listing.images, output)


@ray.remote(num_cpus=1, max_retries=1)
def _write_shard(writer: ShardWriter, task: ShardTask) -> tuple[ShardReport, dict[str, int]]:
    """The report, and requests to stores that were made again."""
    return writer.write(task), retries.take()


@ray.remote(num_cpus=1, max_retries=0)
def _probe(writer: ShardWriter, item: Item) -> None:
    writer.probe(item)


def _run_tasks(
    writer: ShardWriter, tasks: Sequence[ShardTask], resources: Resources, progress: Progress
) -> dict[str, ShardReport]:
    """Run a task per shard, two per core in flight; a shard whose process dies goes on without what kills it."""
    shared = ray.put(writer)
    waiting = deque(tasks)
    running: dict[ray.ObjectRef, ShardTask] = {}
    deaths: dict[str, int] = {}
    reports: dict[str, ShardReport] = {}
    in_flight = max(2, 2 * int(resources.cpus))
    shown = time.monotonic()
    while waiting or running:
        while waiting and len(running) < in_flight:
            task = waiting.popleft()
            running[_write_shard.remote(shared, task)] = task
        ready, _ = ray.wait(list(running), timeout=max(0.1, shown + _STATUS_SECONDS - time.monotonic()))
        for reference in ready:
            task = running.pop(reference)
            try:
                reports[task.name], again = ray.get(reference)
                retries.add(again)
                progress.add(task, reports[task.name])
            except _DEATHS as error:
                deaths[task.name] = deaths.get(task.name, 0) + 1
                if deaths[task.name] > _ROUNDS:
                    raise JobError(
                        f"the process that writes {task.name} dies again and again ({type(error).__name__}), and none "
                        "of its images alone explains it. Is there memory enough for --shard-mb on every core? "
                        "Finished shards stand; the same command goes on from there."
                    ) from error
                print(
                    f"{task.name}: its process died ({type(error).__name__}); checking its images one by one",
                    flush=True,
                )
                waiting.append(_without_killers(shared, task, in_flight))
            except RayTaskError as error:
                raise error.cause from None
        if time.monotonic() - shown >= _STATUS_SECONDS:
            shown = time.monotonic()
            print(progress, flush=True)
    return reports


def _without_killers(shared: ray.ObjectRef, task: ShardTask, in_flight: int) -> ShardTask:
    """The task with those images condemned that kill a process of their own, each time they are tried."""
    suspects = [item for item in task.items if item.path not in task.condemned]
    for _ in range(_PROBES):
        suspects = _dying(shared, suspects, in_flight)
    condemned = task.condemned | {item.path for item in suspects}
    return ShardTask(index=task.index, total=task.total, items=task.items, condemned=condemned)


def _dying(shared: ray.ObjectRef, items: Sequence[Item], in_flight: int) -> list[Item]:
    """Those of the items whose process dies, in the items' order."""
    waiting = deque(items)
    running: dict[ray.ObjectRef, Item] = {}
    dead: list[Item] = []
    while waiting or running:
        while waiting and len(running) < in_flight:
            item = waiting.popleft()
            running[_probe.remote(shared, item)] = item
        ready, _ = ray.wait(list(running))
        for reference in ready:
            item = running.pop(reference)
            try:
                ray.get(reference)
            except (WorkerCrashedError, OutOfMemoryError):
                dead.append(item)
            except NodeDiedError:
                waiting.append(item)
            except RayTaskError as error:
                raise error.cause from None
    return sorted(dead, key=lambda item: item.image_id)


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
