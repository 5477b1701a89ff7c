"""The engine on a real Ray: every image ends in one row, whatever raises or dies on the way."""

from __future__ import annotations

import json
import time
from pathlib import Path

import engine_stages as stages
import pytest
import ray.cloudpickle
from engine_runs import POOL, rows_of, run, spec, write_shards
from engine_stages import KeepStage, LengthStage

from wsss_ray.engine.progress import Activity, Progress
from wsss_ray.engine.resources import Pool, Resources
from wsss_ray.engine.stage import StageSpec
from wsss_ray.errors import JobError
from wsss_ray.shards.footers import parse_footer
from wsss_ray.shards.image_encoding import report_path
from wsss_ray.shards.image_shards import ShardSet, read_shard_set
from wsss_ray.storage.json_files import encode_json
from wsss_ray.storage.storage import Storage

ray.cloudpickle.register_pickle_by_value(stages)  # the actors have no path to this folder


def test_every_image_has_its_row_in_order(tmp_path: Path, local_ray: Resources) -> None:
    units = [[bytes(u + i) for i in range(3)] for u in range(5)]
    shards = write_shards(tmp_path / "in", [units])
    outcome = run(tmp_path, shards, [spec()])
    assert outcome.images == 15
    assert outcome.problems == []
    rows = rows_of(tmp_path, shards)
    assert [row["image_id"] for row in rows] == [f"{u}-{i}" for u in range(5) for i in range(3)]
    assert [row["length"] for row in rows] == [u + i for u in range(5) for i in range(3)]
    assert {"read", "work", "write"} <= set(outcome.seconds)


def test_images_that_raise_fail_alone_with_stage_and_reason(tmp_path: Path, local_ray: Resources) -> None:
    shards = write_shards(tmp_path / "in", [[[b"a", b"raise", b"bc", b"refuse"], [b"first", b"d"]]])
    keep = StageSpec(name="keep", make=KeepStage, pool=Pool(actors=1, cpus=0.2, gpus=0), gpu=stages.first_gpu)
    length = StageSpec(name="length", make=LengthStage, pool=Pool(actors=1, cpus=0.2, gpus=0), gpu=stages.second_gpu)
    run(tmp_path, shards, [keep, length])
    assert json.loads((tmp_path / "out" / f"{shards.units[0].label_path}.gpus").read_text()) == [
        stages.first_gpu(),
        stages.second_gpu(),
    ]
    rows = {row["image_id"]: row for row in rows_of(tmp_path, shards)}
    assert rows["0-1"] == {
        "image_id": "0-1",
        "error": "length: RuntimeError: this image cannot be worked on",
        "length": None,
    }
    assert rows["0-3"]["error"] == "length: refused"
    assert rows["1-0"]["error"] == "keep: RuntimeError: not past the first stage"
    assert [rows[i]["length"] for i in ("0-0", "0-2", "1-1")] == [1, 2, 1]


def test_a_poisoned_image_is_quarantined_and_nothing_else_is_lost(tmp_path: Path, local_ray: Resources) -> None:
    units = [[b"a" * (u + 1), b"b"] for u in range(4)]
    units[1] = [b"xyz", b"kill", b"x"]
    shards = write_shards(tmp_path / "in", [units])
    log = tmp_path / "log"
    run(tmp_path, shards, [spec(log=log)])
    rows = {row["image_id"]: row for row in rows_of(tmp_path, shards)}
    assert len(rows) == 9
    assert rows["1-1"]["error"] == "length: killed its process twice while alone in it"
    assert [row["image_id"] for row in rows.values() if row["error"]] == ["1-1"]
    assert rows["1-0"]["length"] == 3
    deaths = sum(line.endswith(" 1-1") for line in log.read_text().splitlines())
    assert deaths == 4  # twice with its unit, twice alone


def test_an_output_that_cannot_be_written_ends_the_run_with_its_reason(tmp_path: Path, local_ray: Resources) -> None:
    shards = write_shards(tmp_path / "in", [[[b"a"], [b"b"]]])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "labels").write_text("a file where the folder should be")
    with pytest.raises(JobError, match=r"length: (FileExists|NotADirectory|Storage)Error.*labels"):
        run(tmp_path, shards, [spec()])


def test_finished_units_are_not_run_again(tmp_path: Path, local_ray: Resources) -> None:
    shards = write_shards(tmp_path / "in", [[[b"a"], [b"b"], [b"c"]]])
    run(tmp_path, shards, [spec()])
    (tmp_path / "out" / shards.units[1].label_path).unlink()
    log = tmp_path / "log"
    outcome = run(tmp_path, shards, [spec(log=log)])
    assert outcome.images == 1
    noted = [line.split()[1] for line in log.read_text().splitlines()]
    assert [name for name in noted if name != "started"] == ["1-0"]


def test_a_unit_that_cannot_be_read_is_named_and_the_rest_is_done(tmp_path: Path, local_ray: Resources) -> None:
    shards = write_shards(tmp_path / "in", [[[b"a"], [b"b"]]])
    listed = ShardSet(
        units=(
            shards.units[0],
            type(shards.units[1])(**{**vars(shards.units[1]), "digest": "0" * 64}),
        ),
        label_space="space",
        classes="test",
        has_truth=False,
    )
    outcome = run(tmp_path, listed, [spec()])
    assert len(outcome.problems) == 1
    assert "row group 1" in outcome.problems[0]
    assert "replaced" in outcome.problems[0]
    assert (tmp_path / "out" / shards.units[0].label_path).exists()
    assert not (tmp_path / "out" / listed.units[1].label_path).exists()


@pytest.mark.parametrize("damage", ["image id", "footer", "truncated", "empty"])
def test_a_damaged_shard_costs_no_more_than_its_own_units(tmp_path: Path, local_ray: Resources, damage: str) -> None:
    whole = write_shards(tmp_path / "in", [[[b"a"], [b"b"]], [[b"c"]]])
    images = Storage(str(tmp_path / "in"))
    path = tmp_path / "in" / whole.units[0].shard
    data = path.read_bytes()
    images.write(report_path(path.name), encode_json({"footer": parse_footer(data, path.name, kind="images")}))
    position = data.index(b"0-0") if damage == "image id" else data.index(b'"row_groups"') + 2
    changed = bytearray(data)
    changed[position] ^= 128
    path.write_bytes({"truncated": data[:-60], "empty": b""}.get(damage, bytes(changed)))
    shards = read_shard_set(images)
    assert shards.digest == whole.digest, "the run in the output is still the run of these shards"
    outcome = run(tmp_path, shards, [spec()])
    lost = 1 if damage == "image id" else 2
    assert len(outcome.problems) == lost
    assert all(f"{path.name}, row group {index}" in text for index, text in enumerate(sorted(outcome.problems)))
    done = [(tmp_path / "out" / unit.label_path).exists() for unit in shards.units]
    assert done == [False, lost == 1, True]


def test_a_stage_that_cannot_start_ends_the_run_with_its_reason_and_no_traceback(
    tmp_path: Path, local_ray: Resources, capfd: pytest.CaptureFixture[str]
) -> None:
    shards = write_shards(tmp_path / "in", [[[b"a"]]])
    broken = StageSpec(name="broken", make=stages.refuse_to_start, pool=POOL)
    with pytest.raises(JobError, match="broken: ValueError: the weights are not there"):
        run(tmp_path, shards, [broken])
    written = "".join(capfd.readouterr())
    assert "Traceback" not in written
    assert "constructor arguments in the object store" not in written, "Ray's advice"


def test_the_status_line_counts_and_estimates() -> None:
    progress = Progress(total=10, done=2, every_seconds=60)
    assert progress.line().startswith("2 / 10 images (20.0%)")
    progress.add(3, failed=1, boxes=6, seconds={"work": 1.0})
    time.sleep(0.01)
    line = progress.line()
    assert line.startswith("5 / 10 images (50.0%)")
    assert "2.0 boxes/image | 1 failed" in line


def test_the_time_left_follows_the_bytes_where_they_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Progress, "elapsed", 10.0)
    progress = Progress(total=10, done=0, every_seconds=60, total_bytes=100_000_000, failed_word="rejected")
    progress.add(8, failed=1, size=20_000_000)
    line = progress.line()
    assert "2.0 MB/s" in line
    assert line.endswith("1 rejected | 0:00:40 left")


def test_the_status_line_moves_before_the_first_unit_is_finished() -> None:
    progress = Progress(total=64, done=0, every_seconds=60)
    progress.activity = lambda: Activity(loaded={"detect": 1, "segment": 0}, images=0)
    assert progress.line().startswith("0 / 64 images (0.0%) | loading models, 0 s so far")
    progress.activity = lambda: Activity(loaded={"detect": 1, "segment": 1}, images=12)
    line = progress.line()
    assert line.startswith(
        "0 / 64 images (0.0%) and 12 in unfinished units | models are loaded, the first units are at"
    )
    progress.activity = lambda: None
    assert "| starting, " in progress.line()


def test_images_inside_a_unit_are_counted_while_it_runs(
    tmp_path: Path, local_ray: Resources, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = write_shards(tmp_path / "in", [[[b"a"] * 8]])
    progress = Progress(total=8, done=0, every_seconds=0.2)
    run(tmp_path, shards, [spec(seconds=0.6)], progress=progress)
    lines = capsys.readouterr().out
    assert "and 2 in unfinished units" in lines or "and 3 in unfinished units" in lines
    assert "models are loaded, the first units are at work" in lines
    assert lines.splitlines()[-1].startswith("8 / 8 images (100.0%) | ")
