"""The report job: a static gallery of a run's labels, in a folder that opens from disk or a bucket."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, TypeVar

from wsss_ray.config import ReportConfig
from wsss_ray.engine.cluster import connect_for
from wsss_ray.engine.mapping import map_units
from wsss_ray.engine.outputs import check_output
from wsss_ray.engine.progress import Progress
from wsss_ray.errors import JobError
from wsss_ray.labels.run import LabelRun, damage_error
from wsss_ray.labels.summary import excludes_start_up
from wsss_ray.report import overview
from wsss_ray.report.audit import Audit
from wsss_ray.report.index import Index, details_path, encode_details
from wsss_ray.report.site import CONTENT, Pages, Site, settle_files
from wsss_ray.report.state import begin_gallery, check_owner, earlier_state, finish_gallery, state_of
from wsss_ray.report.unit import UnitReporter
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage

INDEX_PATH = "data/index.js"
ResultT = TypeVar("ResultT")


def run(config: ReportConfig) -> None:
    """Write the gallery of a run. An earlier gallery in the same folder is replaced, with its pictures.

    Nothing is done if the folder holds the complete gallery of the same configuration, labels and findings.

    Raises:
        ValueError: labels, images, classes, audit or evaluation do not fit together, or the output holds something
            else.
        JobError: an image shard could not be read, or another report writes to the same folder; or label files are
            damaged: their images are shown as failed, and everything was written.
    """
    check_output(config, job="report")
    run = LabelRun.open(labels=config.labels, images=config.images, classes=config.classes, storage=config.storage)
    output = Storage(config.output, config.storage)
    earlier, state = earlier_state(output, tuple(CONTENT)), state_of(config, run)
    if earlier == state:
        print(f"nothing to do: {output.uri} holds this gallery: open {output.describe('index.html')}", flush=True)
        return
    chosen = choose(run.units, config.sample, config.seed)
    units = [unit for unit in run.units if chosen is None or unit.name in chosen]
    shown = sum(unit.rows for unit in units) if chosen is None else sum(len(rows) for rows in chosen.values())
    audit = Audit(config, {unit.name for unit in units})
    evaluation = overview.read_evaluation(config, run)
    site = Site(
        output,
        title=config.title,
        classes=run.classes,
        images=shown,
        images_per_page=config.images_per_page,
        audited=audit.summary is not None,
    )
    gallery = begin_gallery(output)
    output.sweep()
    site.write_static()
    index = Index(run.classes, audit.kinds)
    agreement = overview.Agreement(len(run.classes.classes))
    reporter = UnitReporter(
        images=run.images,
        labels=run.labels,
        output=output,
        gallery=gallery,
        classes=run.classes,
        thumbnail=config.thumbnail,
        picture=config.picture,
        chosen=chosen,
    )
    damaged = _write_images(config, units, reporter, audit=audit, index=index, agreement=agreement, site=site)
    page = {"pages": site.pages, "perPage": config.images_per_page, "audited": audit.summary is not None}
    check_owner(gallery)
    output.write(INDEX_PATH, index.encode(page))
    site.write_overview(_overview(config, run, audit=audit, agreement=agreement, evaluation=evaluation, shown=shown))
    site.retire_pages()
    missing = settle_files(output, index.files())
    if missing:
        raise JobError(
            f"{len(missing):,} files of the gallery are missing from {output.uri}, the first: {missing[0]}. Another "
            "process removed them, or the nodes do not share this folder: run this command again."
        )
    print(f"gallery of {shown:,} images: open {output.describe('index.html')}", flush=True)
    if (error := damage_error(damaged)) is not None:
        raise error
    finish_gallery(gallery, state)


def _write_images(
    config: ReportConfig,
    units: Sequence[Unit],
    reporter: UnitReporter,
    *,
    audit: Audit,
    index: Index,
    agreement: overview.Agreement,
    site: Site,
) -> dict[str, str]:
    """Write all pictures, details and pages, and return the reasons of damaged label files by unit."""
    damaged: dict[str, str] = {}
    total = site.images
    progress = Progress(total=total, done=0, every_seconds=config.status_seconds)
    pages = Pages(site, config.images_per_page)
    with connect_for(total, config.ray) as resources, progress.printing():
        for position, made in in_order(map_units(units, reporter, config=config.ray, resources=resources)):
            check_owner(reporter.gallery)
            name, cards = units[position].name, made.cards
            if made.damage is not None:
                damaged[name] = made.damage
            audit.join(cards)
            reporter.output.write(details_path(name), encode_details(name, cards))
            for card in cards:
                index.add(card)
                agreement.add(card)
                pages.add(card)
            progress.add(len(cards), failed=sum(card.status == "failed" for card in cards))
        check_owner(reporter.gallery)
        pages.finish()
    return damaged


def choose(units: Sequence[Unit], sample: int | None, seed: int) -> dict[str, list[int]] | None:
    """Return the rows to show by name of their unit: a sample of all images by the seed, or None for all images."""
    total = sum(unit.rows for unit in units)
    if sample is None or sample >= total:
        return None
    drawn = sorted(random.Random(seed).sample(range(total), sample))  # noqa: S311 - not for secrets
    chosen: dict[str, list[int]] = {}
    ends = list(accumulate(unit.rows for unit in units))
    position = 0
    for number in drawn:
        while number >= ends[position]:
            position += 1
        unit = units[position]
        chosen.setdefault(unit.name, []).append(number - (ends[position] - unit.rows))
    return chosen


def in_order(results: Iterator[tuple[int, ResultT]]) -> Iterator[tuple[int, ResultT]]:
    """Iterate over results by position; a result that comes early is held back."""
    waiting: dict[int, ResultT] = {}
    following = 0
    for position, result in results:
        waiting[position] = result
        while following in waiting:
            yield following, waiting.pop(following)
            following += 1
    assert not waiting, "every unit has a result"


def _overview(
    config: ReportConfig,
    run: LabelRun,
    *,
    audit: Audit,
    agreement: overview.Agreement,
    evaluation: dict[str, Any] | None,
    shown: int,
) -> dict[str, Any]:
    counts = overview.read_counts(run)
    return {
        "shown": shown,
        "sample": config.sample is not None and shown < counts["images"],
        "seed": config.seed,
        "labels": overview.portable(run.labels),
        "total": run.shards.rows,
        "counts": counts,
        "statuses": overview.status_rows(counts),
        "class_rows": overview.class_rows(run, counts, agreement, evaluation),
        "errors": overview.error_rows(counts),
        "agreement": {"images": agreement.images, "mean": agreement.mean, "bins": agreement.bins},
        "evaluation": evaluation,
        "audit": audit.summary,
        "session": counts["session"],
        "after_start_up": excludes_start_up(counts["session"]),
        "stages": overview.stage_rows(counts["session"]),
        "settings": overview.setting_rows(run.identity),
    }
