"""Output directories: who may claim them, who works in them, which units are finished."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from engine_runs import write_shards

from wsss_ray.engine.drivers import find_drivers, record_driver
from wsss_ray.engine.run_directory import RunDirectory, units_to_do
from wsss_ray.storage.json_files import encode_json
from wsss_ray.storage.storage import Storage

pytestmark = pytest.mark.processes

IDENTITY = {"a": {"b": 1, "c": 2}, "d": [1]}
OTHER = {"a": {"b": 1, "c": 3}, "d": [1]}


@pytest.fixture(params=["local", "s3", "memory"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return Storage(str(tmp_path / "out"))
    if request.param == "memory":
        return Storage(f"memory://{uuid.uuid4().hex}")
    s3: Any = request.getfixturevalue("s3")
    return Storage(s3.uri(uuid.uuid4().hex), s3.config)


def finish_a_unit(output: Storage) -> None:
    output.write("labels/shard-00000-of-00001-0000-01234567.parquet", b"x")


def test_another_configuration_is_refused_with_the_fields_that_differ(output: Storage) -> None:
    directory = RunDirectory(storage=output)
    assert directory.claim(IDENTITY)
    finish_a_unit(output)
    assert not directory.claim(IDENTITY)
    assert directory.read_identity() == IDENTITY
    with pytest.raises(ValueError, match=r"a\.c: 2 -> 3") as caught:
        directory.claim(OTHER)
    assert "a.b" not in str(caught.value)
    assert directory.read_identity() == IDENTITY


def test_a_run_that_finished_nothing_makes_room(output: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    directory = RunDirectory(storage=output)
    assert directory.claim(IDENTITY)
    assert directory.claim(OTHER)
    assert (
        capsys.readouterr().out
        == f"{output.uri} is claimed for this run: its earlier run ended and finished nothing.\n"
    )
    assert directory.read_identity() == OTHER
    output.write("run.json", b"{")  # its writer was on a disk that lost it
    assert directory.claim(IDENTITY)


def test_a_run_at_work_keeps_its_directory(tmp_path: Path) -> None:
    output = Storage(str(tmp_path))
    directory = RunDirectory(storage=output)
    directory.claim(IDENTITY)
    source = Path(__file__).parents[2]
    code = (
        "import sys; from wsss_ray.engine.drivers import record_driver; from wsss_ray.storage.storage import Storage\n"
        "with record_driver(Storage(sys.argv[1])): print('at work', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(source)},
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(ValueError, match=rf"a\.c: 2 -> 3\nA driver is at work there: process {other.pid} on "):
            directory.claim(OTHER)
        other.kill()
    assert directory.claim(OTHER), "its file is there, its process is not"
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_driver_of_another_machine_counts_as_at_work(output: Storage) -> None:
    directory = RunDirectory(storage=output)
    directory.claim(IDENTITY)
    output.write("driver-far-7.json", encode_json({"host": "far", "process": 7, "started": "then"}))
    with pytest.raises(ValueError, match=r"process 7 on far\. If it has ended, remove .*driver-far-7\.json"):
        directory.claim(OTHER)
    output.remove("driver-far-7.json")
    assert directory.claim(OTHER)


def test_a_driver_whose_claim_was_replaced_stops(tmp_path: Path) -> None:
    output = Storage(str(tmp_path))
    directory = RunDirectory(storage=output)
    directory.claim(IDENTITY)
    directory.claim(OTHER)
    with pytest.raises(ValueError, match="was claimed by another run meanwhile"), directory.at_work(IDENTITY):
        raise AssertionError
    with directory.at_work(OTHER):
        (record,) = (path for path in tmp_path.iterdir() if path.name.startswith("driver-"))
        assert json.loads(record.read_text())["process"] == os.getpid()
        assert find_drivers(output) == [], "itself"
    assert find_drivers(output) == []
    with record_driver(output):
        assert directory.claim(IDENTITY), "this driver itself is no obstacle"


def test_labels_of_unknown_origin_are_not_joined(output: Storage) -> None:
    finish_a_unit(output)
    with pytest.raises(ValueError, match=r"holds labels, but no run\.json"):
        RunDirectory(storage=output).claim(IDENTITY)


def test_an_empty_folder_is_no_content(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    assert RunDirectory(storage=Storage(str(tmp_path))).claim(IDENTITY)


def test_files_of_unknown_origin_are_not_joined(output: Storage) -> None:
    output.write("photos/a.jpg", b"x")
    directory = RunDirectory(storage=output, claim_file="shards.json", content="shards", content_paths=())
    with pytest.raises(ValueError, match=r"holds files, but no shards\.json"):
        directory.claim(IDENTITY)


def test_notes_are_no_part_of_the_identity(output: Storage) -> None:
    directory = RunDirectory(storage=output, claim_file="shards.json", content="shards", content_paths=())
    assert directory.claim(IDENTITY, input="here")
    output.write("shard-00000-of-00001.parquet", b"x")
    assert not directory.claim(IDENTITY, input="there")
    assert directory.read_identity() == IDENTITY


def test_a_damaged_claim_with_labels_is_named(output: Storage) -> None:
    directory = RunDirectory(storage=output)
    directory.claim(IDENTITY)
    finish_a_unit(output)
    output.write("run.json", output.read("run.json").replace(b'"b": 1', b'"b": 3'))
    with pytest.raises(ValueError, match=r"^\S*run\.json is damaged.*use another --output"):
        directory.claim(IDENTITY)
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        directory.read_identity()


def test_a_claim_of_an_earlier_version_is_joined(output: Storage) -> None:
    output.write("run.json", json.dumps(IDENTITY, indent=2, sort_keys=True).encode())
    finish_a_unit(output)
    assert not RunDirectory(storage=output).claim(IDENTITY)


def test_limit_is_rounded_up_to_whole_units(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "in", [[[b"a", b"b"], [b"c", b"d"], [b"e"]]])
    output = Storage(str(tmp_path / "out"))
    assert len(units_to_do(shards, output, limit=2)[1]) == 1
    assert len(units_to_do(shards, output, limit=3)[1]) == 2
    assert len(units_to_do(shards, output, limit=None)[1]) == 3
    output.write(shards.units[0].label_path, b"")
    finished, missing = units_to_do(shards, output, limit=3)
    assert [unit.row_group for unit in finished] == [0]
    assert [unit.row_group for unit in missing] == [1]


def test_an_empty_folder_of_results_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    assert RunDirectory(storage=Storage(str(tmp_path)), content_paths=("labels", "student.safetensors")).claim(IDENTITY)


@pytest.mark.parametrize("name", ["labels/a.parquet", "student.safetensors"])
def test_results_without_a_claim_are_refused(tmp_path: Path, name: str) -> None:
    Storage(str(tmp_path)).write(name, b"x")
    directory = RunDirectory(storage=Storage(str(tmp_path)), content_paths=("labels", "student.safetensors"))
    with pytest.raises(ValueError, match=r"but no run\.json that says how they were made"):
        directory.claim(IDENTITY)
