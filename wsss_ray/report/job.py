"""The report job: a static gallery of a run's labels, in a folder that opens from disk or a bucket."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, TypeVar

import pyarrow.parquet as pq

from wsss_ray.config import ReportConfig
from wsss_ray.engine.cluster import connect_for
from wsss_ray.engine.mapping import map_units
from wsss_ray.engine.progress import Progress
from wsss_ray.engine.run_directory import RUN_FILE
from wsss_ray.labels.run import LabelRun, damage_error
from wsss_ray.labels.summary import excludes_start_up
from wsss_ray.report import overview
from wsss_ray.report.index import Index, details_path, encode_details
from wsss_ray.report.site import CONTENT, Site, remove_leftovers
from wsss_ray.report.state import MARKER, encode_marker, read_marker, state_of
from wsss_ray.report.unit import Card, UnitReporter
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage

INDEX_PATH = "data/index.js"
ResultT = TypeVar("ResultT")


def run(config: ReportConfig) -> None:
    """Make the gallery of a run; an earlier one in the same folder is replaced, with its pictures.

    Nothing is done where the folder holds the gallery of the same configuration, labels and audit.

    Raises:
        ValueError: labels, images, classes or audit cannot be used together, or the output holds something else.
        JobError: an image shard could not be read; or label files are damaged: their images are shown as failed, and
            everything was written.
    """
    run = LabelRun.open(labels=config.labels, images=config.images, classes=config.classes, storage=config.storage)
    output = Storage(config.output, config.storage)
    earlier, state = _claim(output), state_of(config, run)
    if earlier == state:
        print(f"nothing to do: the gallery is made of these labels: open {output.describe('index.html')}", flush=True)
        return
    damaged: dict[str, str] = {}
    chosen = choose(run.units, config.sample, config.seed)
    units = [unit for unit in run.units if chosen is None or unit.name in chosen]
    shown = sum(unit.rows for unit in units) if chosen is None else sum(len(rows) for rows in chosen.values())
    audit = _Audit(config, {unit.name for unit in units})
    site = Site(output, title=config.title, classes=run.classes, images=shown, images_per_page=config.images_per_page)
    reporter = UnitReporter(
        images=run.images,
        labels=run.labels,
        output=output,
        classes=run.classes,
        thumbnail=config.thumbnail,
        picture=config.picture,
        chosen=chosen,
    )
    index = Index(run.classes, audit.kinds)
    agreement = overview.Agreement(len(run.classes.classes))
    progress = Progress(total=shown, done=0, every_seconds=config.status_seconds)
    output.write(MARKER, encode_marker(None))
    site.write_static()
    with connect_for(shown, config.ray) as resources, progress.printing():
        pages = _Pages(site, config.images_per_page)
        for place, made in _in_order(map_units(units, reporter, config=config.ray, resources=resources)):
            cards = made.cards
            if made.damage is not None:
                damaged[units[place].name] = made.damage
            audit.join(cards)
            output.write(details_path(units[place].name), encode_details(units[place].name, cards))
            for card in cards:
                index.add(card)
                agreement.add(card)
                pages.add(card)
            progress.add(len(cards), failed=sum(card.status == "failed" for card in cards))
        pages.finish()
    page = {"pages": site.pages, "perPage": config.images_per_page, "audited": audit.summary is not None}
    output.write(INDEX_PATH, index.encode(page))
    site.write_overview(_overview(config, run, audit, agreement, shown))
    site.retire_pages()
    remove_leftovers(output, index.files())
    print(f"gallery of {shown:,} images: open {output.describe('index.html')}", flush=True)
    if (error := damage_error(damaged)) is not None:
        raise error
    output.write(MARKER, encode_marker(state))


def choose(units: Sequence[Unit], sample: int | None, seed: int) -> dict[str, list[int]] | None:
    """Rows to show, by name of their unit: a sample of all images by the seed, or None for all of them."""
    total = sum(unit.rows for unit in units)
    if sample is None or sample >= total:
        return None
    drawn = sorted(random.Random(seed).sample(range(total), sample))  # noqa: S311 - not for secrets
    chosen: dict[str, list[int]] = {}
    ends = list(accumulate(unit.rows for unit in units))
    place = 0
    for number in drawn:
        while number >= ends[place]:
            place += 1
        unit = units[place]
        chosen.setdefault(unit.name, []).append(number - (ends[place] - unit.rows))
    return chosen


class _Audit:
    """The audit's rows of the images shown, if there is an audit."""

    def __init__(self, config: ReportConfig, units: set[str]) -> None:
        self.summary: dict[str, Any] | None = None
        self.kinds: list[str] = []
        self._rows: dict[str, dict[str, Any]] = {}
        self._places: dict[str, list[dict[str, Any]]] = {}
        if config.audit is None:
            return
        storage = Storage(config.audit, config.storage)
        self.summary = overview.read_audit(storage)
        self.kinds = list(self.summary["weights"])
        for row in _parquet_rows(storage, "audit.parquet", ["image_id", "rank", "unit", "reasons"]):
            if row["unit"] in units:
                self._rows[row["image_id"]] = row
        if self.summary.get("against_truth"):
            for row in _parquet_rows(storage, "places.parquet", ["image_id", "class", "kind", "other", "box", "unit"]):
                if row["unit"] in units:
                    self._places.setdefault(row["image_id"], []).append(row)

    def join(self, cards: Iterable[Card]) -> None:
        for card in cards:
            row = self._rows.get(card.image_id)
            if row is not None:
                card.rank, card.reasons = row["rank"], row["reasons"]
            card.places = self._places.get(card.image_id, [])


def _parquet_rows(storage: Storage, path: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    with storage.open(path) as file, pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(batch_size=4096, columns=list(columns)):
            yield from batch.to_pylist()


class _Pages:
    """Cards in order to pages of equal length, each written when it is full."""

    def __init__(self, site: Site, images_per_page: int) -> None:
        self._site = site
        self._size = images_per_page
        self._cards: list[Card] = []
        self._written = 0

    def add(self, card: Card) -> None:
        self._cards.append(card)
        if len(self._cards) == self._size:
            self._write()

    def finish(self) -> None:
        if self._cards or self._written == 0:
            self._write()

    def _write(self) -> None:
        first = self._written * self._size + 1
        self._written += 1
        self._site.write_page(self._written, self._cards, first=first)
        self._cards = []


def _in_order(results: Iterator[tuple[int, ResultT]]) -> Iterator[tuple[int, ResultT]]:
    """Results by their place, each held until those before it have come."""
    waiting: dict[int, ResultT] = {}
    following = 0
    for place, result in results:
        waiting[place] = result
        while following in waiting:
            yield following, waiting.pop(following)
            following += 1
    assert not waiting, "every unit has a result"


def _claim(output: Storage) -> str | None:
    """Refuse a folder that holds something else; the state of the whole gallery that is there, if there is one."""
    if output.exists(RUN_FILE):
        raise ValueError(f"{output.uri} is the directory of a run. Give the gallery a folder of its own as --output.")
    if output.exists(MARKER):
        return read_marker(output)
    if output.exists("index.html"):
        raise ValueError(f"{output.uri} holds an index.html that is no gallery of this job. Give an empty --output.")
    for folder in CONTENT:  # a later gallery removes from these folders what it does not name
        if output.list(folder):
            raise ValueError(
                f"{output.describe(folder)} holds files of no gallery of this job. Give an empty --output."
            )
    return None


def _overview(
    config: ReportConfig, run: LabelRun, audit: _Audit, agreement: overview.Agreement, shown: int
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
        "class_rows": overview.class_rows(run, counts, agreement),
        "errors": overview.error_rows(counts),
        "agreement": {"images": agreement.images, "mean": agreement.mean, "bins": agreement.bins},
        "audit": audit.summary,
        "session": counts["session"],
        "after_start_up": excludes_start_up(counts["session"]),
        "stages": overview.stage_rows(counts["session"]),
        "settings": overview.setting_rows(run.identity),
    }
