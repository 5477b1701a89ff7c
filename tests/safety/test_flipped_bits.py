"""Bits that flip in any file of a run: every reader finds what was written, or names the file."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from export_cases import MADE, Run, write_made

from wsss_ray.classes import ClassSet
from wsss_ray.engine.run_directory import RUN_FILE, RunDirectory
from wsss_ray.export.exported import PARTS, ExportedUnit, ExportedUnits
from wsss_ray.export.job import Export
from wsss_ray.export.plan import EXPORT_FILE, directory_of
from wsss_ray.export.summary import SUMMARY_FILE as EXPORT_SUMMARY_FILE
from wsss_ray.export.summary import ExportSummary
from wsss_ray.labels.inputs import RunLabels
from wsss_ray.labels.run import read_label_rows
from wsss_ray.labels.summary import SUMMARY_FILE, summarise
from wsss_ray.report.state import MARKER, earlier_state
from wsss_ray.sharding.writing import ShardReport
from wsss_ray.shards.footers import ShardError, parse_footer
from wsss_ray.shards.image_encoding import report_path, shard_name
from wsss_ray.shards.image_shards import find_shard_damage, read_shard_set, read_unit
from wsss_ray.shards.label_files import find_damage, read_label_counts, read_labelled_ids
from wsss_ray.storage.json_files import encode_json
from wsss_ray.storage.storage import Storage
from wsss_ray.training.checkpoint_files import checkpoint_path, digest_path, read_checkpoint_file, write_checkpoint_file

FLIPS = 2000
EXPORT = "coco-instances"
IDENTITY = {"detector": {"box_threshold": 0.3}, "fusion": {"paint": "score"}}
COLUMNS = ["image_id", "source", "height", "width", "tags", "truth"]
Reader = Callable[[Path], Iterator[Any]]
"""Yields what is read where a file may have changed: values, or errors in their place."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A labelled run with everything that other jobs leave, but without their work."""
    made = write_made(tmp_path_factory.mktemp("flips"), MADE)
    images, labels = storages(made)
    labels.write(RUN_FILE, encode_json({"shards": read_shard_set(images).digest, **IDENTITY}))
    session = {"images": 9, "seconds": 4.5, "images_per_second": 2.0, "stage_seconds": {"detect": 1.25}}
    labels.write(SUMMARY_FILE, encode_json({"images": 9, "session": session}))
    for name in {unit.shard for unit in read_shard_set(images).units}:
        footer = parse_footer(images.read(name), name, kind="images")
        counts = {"images": 9, "rows": 9, "skipped": 0, "untagged": 1, "truth": 0, "size": 1, "tags": {"cat": 4}}
        images.write(report_path(name), ShardReport(**counts, footer=footer).to_json())
    made.export(EXPORT)
    for iteration in (100, 200):
        write_checkpoint_file(labels, iteration, random.Random(iteration).randbytes(5000), keep=2)
    Storage(str(made.root / "gallery")).write(MARKER, encode_json({"made_by": "wsss_ray report", "state": "ab" * 32}))
    return made


def storages(run: Run) -> tuple[Storage, Storage]:
    return Storage(str(run.root / "images")), Storage(str(run.root / "labels"))


def piece(read: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What a call returns, or an error that is meant for users. Any other exception fails the test."""
    try:
        return read(*arguments, **options)
    except ValueError as error:
        if type(error) not in (ValueError, ShardError):  # such as that of text in another encoding
            raise
        return error


def read_images(run: Run) -> Iterator[Any]:
    images, _ = storages(run)
    shards = piece(read_shard_set, images)
    if isinstance(shards, ValueError):
        yield shards
        return
    yield [asdict(unit) for unit in shards.units], shards.digest
    for unit in shards.units:
        yield piece(read_unit, images, unit)
        yield piece(read_unit, images, unit, columns=COLUMNS, check="footer")
    yield as_error(find_shard_damage(images, shard_name(0, 1)))


def as_error(reason: str | None) -> ValueError | None:
    return None if reason is None else ValueError(reason)


def read_label_file(run: Run, file: Path) -> Iterator[Any]:
    images, labels = storages(run)
    classes = ClassSet.load("voc")
    unit = next(unit for unit in read_shard_set(images).units if unit.name == file.stem)
    damage: list[str] = []
    rows = [row.to_row() for row in read_label_rows(images, labels, unit, classes, damage.append)]
    yield ValueError(damage[0]) if damage else rows
    yield as_error(find_damage(labels, unit)) or file.read_bytes()  # a file without damage is as it was written
    yield piece(read_label_counts, labels, unit)
    yield piece(read_labelled_ids, labels, unit)
    ids = read_unit(images, unit, columns=["image_id"], check="footer")["image_id"].to_pylist()
    source = RunLabels(storage=labels, files=frozenset([unit.label_path]), instances=True)
    files = source.read(unit, ids, list(range(len(ids))))
    yield ValueError(files[0].damage) if files[0].damage else files


def read_claim(run: Run) -> Iterator[Any]:
    images, labels = storages(run)
    directory = RunDirectory(storage=labels)
    yield piece(directory.read_identity)
    yield piece(directory.claim, {"shards": read_shard_set(images).digest, **IDENTITY})


def read_summary(run: Run, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    images, labels = storages(run)
    summary = summarise(labels, read_shard_set(images).units, None)
    told = capsys.readouterr().out
    yield ValueError(told) if told else summary


def read_reports(run: Run) -> Iterator[Any]:
    images, _ = storages(run)
    for name in images.list("reports"):
        path = f"reports/{name}"
        yield piece(ShardReport.from_json, images.read(path), path)


def read_export(export: Export) -> Iterator[Any]:
    output = export.output
    yield piece(directory_of(output).claim, export.identity)
    yield piece(ExportSummary.from_json, output.read(EXPORT_SUMMARY_FILE), EXPORT_SUMMARY_FILE)
    units = ExportedUnits(output=output, slots=export.slots)
    yield piece(lambda: list(units.parts()))
    for name in output.list(PARTS):
        if name.endswith(".json"):
            yield piece(ExportedUnit.from_json, output.read(f"{PARTS}/{name}"), name)


def read_checkpoints(run: Run) -> Iterator[Any]:
    _, labels = storages(run)
    for iteration in (100, 200):
        yield piece(read_checkpoint_file, labels, iteration)


def read_gallery(run: Run) -> Iterator[Any]:
    state = earlier_state(Storage(str(run.root / "gallery")), ())
    yield state if state is not None else ValueError(MARKER)  # it is written again


def test_no_flipped_bit_gives_another_result(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """2,000 times one to three bits of one file; every file of a kind is as likely as another."""
    root, chosen = run.root, random.Random(5)
    export = Export.prepare(run.config(EXPORT))
    kinds: list[tuple[list[Path], Reader, int]] = [
        (sorted((root / "images").glob("*.parquet")), lambda _: read_images(run), 6),
        (sorted((root / "labels" / "labels").iterdir()), lambda file: read_label_file(run, file), 6),
        ([root / "labels" / RUN_FILE], lambda _: read_claim(run), 2),
        ([root / "labels" / SUMMARY_FILE], lambda _: read_summary(run, capsys), 1),
        (sorted((root / "images" / "reports").iterdir()), lambda _: read_reports(run), 1),
        (
            [
                root / EXPORT / EXPORT_FILE,
                root / EXPORT / EXPORT_SUMMARY_FILE,
                *sorted((root / EXPORT / PARTS).iterdir()),
            ],
            lambda _: read_export(export),
            2,
        ),
        (
            [root / "labels" / path(i) for i in (100, 200) for path in (checkpoint_path, digest_path)],
            lambda _: read_checkpoints(run),
            1,
        ),
        ([root / "gallery" / MARKER], lambda _: read_gallery(run), 1),
    ]
    whole = {file: list(read(file)) for files, read, _ in kinds for file in files}
    assert not [value for values in whole.values() for value in values if isinstance(value, ValueError)]
    named = 0
    for _ in range(FLIPS):
        files, read, _ = chosen.choices(kinds, [weight for _, _, weight in kinds])[0]
        file = chosen.choice(files)
        content = file.read_bytes()
        flipped = bytearray(content)
        bits = chosen.sample(range(8 * len(content)), chosen.randint(1, 3))
        for bit in bits:
            flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        found = list(read(file))
        file.write_bytes(content)
        errors = [str(value) for value in found if isinstance(value, ValueError)]
        named += bool(errors)
        name = file.name.removesuffix(".sha256").removesuffix(".part")
        assert all(name in error for error in errors), (file, bits, errors)
        assert errors or len(found) == len(whole[file]), (file, bits)
        for value, written in zip(found, whole[file], strict=False):
            assert isinstance(value, ValueError) or value == written, (file, bits)
    assert named > 0.98 * FLIPS
