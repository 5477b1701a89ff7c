"""Footers of shards and label files: what they cost before a store, and files that have none."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faulty_s3 import Faults, FaultyS3, faulty
from local_s3 import S3Server

from wsss_ray.labels.summary import summarise
from wsss_ray.shards.footers import ShardError
from wsss_ray.shards.image_encoding import shard_name
from wsss_ray.shards.label_files import encode_labels, read_label_counts
from wsss_ray.shards.schemas import LABEL_SCHEMA
from wsss_ray.shards.units import Unit
from wsss_ray.storage.storage import Storage

COUNTS = {"images": 2, "statuses": {"ok": 2}, "errors": {}, "classes": {"dog": {"tagged": 2}}}


@pytest.fixture(scope="module")
def proxy(s3: S3Server) -> Iterator[FaultyS3]:
    with faulty(s3) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: FaultyS3) -> Storage:
    """A prefix of its own behind the proxy."""
    proxy.faults = Faults()
    return Storage(proxy.uri(uuid.uuid4().hex), proxy.config)


def label_file(unit: Unit, counts: dict[str, Any] = COUNTS) -> bytes:
    row = {"height": 3, "width": 4, "tags": [], "status": "ok", "label": uuid.uuid4().bytes * 5000}
    rows = [{"image_id": name, **row} for name in "ab"]
    return encode_labels(pa.Table.from_pylist(rows, schema=LABEL_SCHEMA), unit, counts)


def units(count: int) -> list[Unit]:
    names = [shard_name(index, count) for index in range(count)]
    return [Unit(shard=name, row_group=0, rows=2, digest="ab" * 32, exif="ignore") for name in names]


def test_a_summary_asks_a_store_once_for_each_label_file(proxy: FaultyS3, store: Storage) -> None:
    finished = units(40)
    for unit in finished:
        store.write(unit.label_path, label_file(unit))
    proxy.requests.clear()
    summary = summarise(store, finished, None)
    assert (summary["images"], summary["statuses"], summary["units"]) == (80, {"ok": 80}, 40)
    assert proxy.requests == {"GET": 41}, "each label file's end, and the summary of an earlier session"


@pytest.mark.parametrize(("classes", "requests"), [(3, 1), (2000, 2)])
def test_a_footer_of_any_length(proxy: FaultyS3, store: Storage, classes: int, requests: int) -> None:
    counts = {**COUNTS, "classes": {f"class {index}": {"tagged": index} for index in range(classes)}}
    (unit,) = units(1)
    store.write(unit.label_path, label_file(unit, counts))
    proxy.requests.clear()
    assert read_label_counts(store, unit) == counts
    assert proxy.requests == {"GET": requests}


def test_a_footer_comes_whole_from_a_store_that_cuts_its_answers(proxy: FaultyS3, store: Storage) -> None:
    (unit,) = units(1)
    store.write(unit.label_path, label_file(unit))
    proxy.faults = Faults(cut=0.3, refuse=0.2)
    assert all(read_label_counts(store, unit) == COUNTS for _ in range(20))


@pytest.mark.parametrize("place", ["local", "s3", "memory"])
def test_files_without_a_footer(place: str, store: Storage, tmp_path: Any) -> None:
    storage = {"local": Storage(str(tmp_path)), "s3": store, "memory": Storage(f"memory://{uuid.uuid4().hex}")}[place]
    unit, other = units(2)
    with pytest.raises(FileNotFoundError):
        read_label_counts(storage, unit)
    whole = label_file(unit)
    storage.write(unit.label_path, whole)
    assert read_label_counts(storage, unit) == COUNTS
    for data in (b"", b"PAR1", whole[:-9], b"\xff\xff\xff\x7fPAR1"):
        storage.write(unit.label_path, data)
        with pytest.raises(ShardError, match=f"{unit.name}.parquet is truncated or no Parquet file"):
            read_label_counts(storage, unit)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": [1]}), sink)
    storage.write(unit.label_path, sink.getvalue().to_pybytes())
    with pytest.raises(ShardError, match="was not made by wsss_ray"):
        read_label_counts(storage, unit)
    storage.write(other.label_path, whole)
    with pytest.raises(ShardError, match=f"{other.name}.parquet holds the labels of '{unit.name}'"):
        read_label_counts(storage, other)


def test_a_small_file_is_read_by_one_request(proxy: FaultyS3, store: Storage) -> None:
    store.write("a", bytes(100_000))
    proxy.requests.clear()
    assert store.read("a") == bytes(100_000)
    assert proxy.requests == {"GET": 1}


@pytest.mark.parametrize("size", [1, 5, 6, 100])
@pytest.mark.parametrize("place", ["local", "s3", "memory"])
def test_the_end_of_a_file(place: str, size: int, store: Storage, tmp_path: Any) -> None:
    storage = {"local": Storage(str(tmp_path)), "s3": store, "memory": Storage(f"memory://{uuid.uuid4().hex}")}[place]
    storage.write("a", b"01234")
    assert storage.read_end("a", size) == b"01234"[-size:]
