"""Faults, with numbers: images in = rows out, each once, with the content of an undisturbed run."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import engine_stages as stages
import processes
import pytest
import ray
import ray.cloudpickle
from disks import make_room, small_disk
from engine_runs import rows_of, run, write_shards
from engine_stages import ExperiencedLedger, HungryStage, JsonSink, KeepStage, LengthStage
from processes import KillingStorage, SlowStorage, descendants, killing, started
from soak import SOAK

from wsss_ray.engine import run as engine_run
from wsss_ray.engine.progress import Progress
from wsss_ray.engine.resources import Pool, Resources
from wsss_ray.engine.run import run_units
from wsss_ray.engine.stage import StageSpec
from wsss_ray.engine.task import UnitTask
from wsss_ray.errors import JobError
from wsss_ray.storage.storage import Storage

ray.cloudpickle.register_pickle_by_value(stages)  # the actors have no path to this folder
ray.cloudpickle.register_pickle_by_value(processes)
POOL = Pool(actors=1, cpus=0.3, gpus=0)
TWO = Pool(actors=2, cpus=0.3, gpus=0)
KILLS = 10 if SOAK else 1
"""Of every kind of process."""


@pytest.mark.timeout(900)
def test_kills_of_every_kind_of_process_and_a_poisoned_image(tmp_path: Path, local_ray: Resources) -> None:
    """Readers, the actors of two pools and the ledger die, ten times each in `make soak`.

    One image kills each process that runs it, and one meets a device that fails.

    An image alone in its process takes milliseconds: kills that meet the same one twice are next to impossible.
    """
    units = [[b"a" * (u + 1), b"bb", b"ccc"] for u in range(60)]
    units[5] = [b"a", b"kill", b"cc"]
    units[9] = [b"a", b"lose", b"cc"]
    shards = write_shards(tmp_path / "in", [units, [[b"last"]]])
    logs = {name: tmp_path / f"{name}.log" for name in ("keep", "length")}
    images = SlowStorage(str(tmp_path / "in"), gate=tmp_path / "gate")
    specs = [
        StageSpec(name="keep", make=functools.partial(KeepStage, str(logs["keep"]), 0.01), pool=TWO),
        StageSpec(name="length", make=functools.partial(LengthStage, str(logs["length"]), 0.01), pool=TWO),
    ]
    kinds = {
        "read": lambda: {pid for pid, line in descendants().items() if "read_task" in line},
        "keep": lambda: started(logs["keep"]),
        "length": lambda: started(logs["length"]),
        "ledger": lambda: {pid for pid, line in descendants().items() if line.startswith("ray::Ledger")},
    }
    with killing(kinds, times=KILLS, seconds=(0.05, 0.5), when_done=tmp_path / "gate") as killed:
        outcome = run_units(
            [UnitTask(unit=unit) for unit in shards.units],
            images=images,
            stages=specs,
            sink=JsonSink(Storage(str(tmp_path / "out"))),
            progress=Progress(total=shards.rows, done=0, every_seconds=60),
        )
    assert killed == dict.fromkeys(kinds, KILLS)
    assert outcome.problems == []
    rows = rows_of(tmp_path, shards)
    whole = [*units, [b"last"]]
    ids = [f"{u}-{i}" for u, images_of_unit in enumerate(whole) for i in range(len(images_of_unit))]
    assert [row["image_id"] for row in rows] == ids
    assert [row["image_id"] for row in rows if row["error"]] == ["5-1"]
    lengths = [len(image) for images_of_unit in whole for image in images_of_unit if image != b"kill"]
    assert [row["length"] for row in rows if not row["error"]] == lengths
    output = Storage(str(tmp_path / "out"))
    assert len(output.list("labels")) == len(shards.units)
    output.sweep("labels")
    assert len(list((tmp_path / "out" / "labels").iterdir())) == len(shards.units), "killed writers left something"


def test_a_full_disk_ends_the_run_and_loses_nothing(tmp_path: Path, local_ray: Resources) -> None:
    units = [[b"x" * 100] * 40 for _ in range(30)]  # about 3 kB of JSON a unit
    shards = write_shards(tmp_path / "in", [units])
    spec = StageSpec(name="length", make=LengthStage, pool=POOL)
    with small_disk(tmp_path / "out", kilobytes=64):
        with pytest.raises(JobError, match=r"labels/shard-.*: the disk is full \(No space left on device\). Make room"):
            run(tmp_path, shards, [spec])
        there = list((tmp_path / "out" / "labels").iterdir())
        assert 0 < len(there) < 30
        assert all(len(json.loads(path.read_text())) == 40 for path in there), "what is there is whole"
        make_room(tmp_path / "out")
        outcome = run(tmp_path, shards, [spec])
        assert outcome.images == 40 * (30 - len(there)), "only what was missing"
        assert len(rows_of(tmp_path, shards)) == 1200


def test_a_file_that_may_not_grow_ends_the_run_and_loses_nothing(
    tmp_path: Path, local_ray: Resources, capfd: pytest.CaptureFixture[str]
) -> None:
    """The same without the right to mount: the kernel refuses files above a size to the process that writes them."""
    units = [[b"x" * 10] * (4 if u % 2 else 400) for u in range(6)]
    shards = write_shards(tmp_path / "in", [units])
    limited = StageSpec(name="length", make=functools.partial(stages.limited_files, 8000), pool=POOL)
    with pytest.raises(JobError, match=r"the disk is full \(File too large\)"):
        run(tmp_path, shards, [limited])
    run(tmp_path, shards, [StageSpec(name="length", make=LengthStage, pool=POOL)])
    assert len(rows_of(tmp_path, shards)) == shards.rows
    assert not list((tmp_path / "out" / "labels").glob(".*")), "nothing half-written stays"
    written = "".join(capfd.readouterr())  # of the workers too: Ray carries their lines here within a second
    assert "Traceback" not in written


def test_an_image_too_large_for_the_memory_fails_and_the_pool_goes_on(tmp_path: Path, local_ray: Resources) -> None:
    """Each process may take 300 MB more than at its start; "hungry" images want 2 GB."""
    units = [[b"a" * (u + 1), b"bb"] for u in range(6)]
    units[2] = [b"hungry", b"bb"]
    shards = write_shards(tmp_path / "in", [units])
    outcome = run(tmp_path, shards, [StageSpec(name="hungry", make=HungryStage, pool=POOL)])
    rows = {row["image_id"]: row for row in rows_of(tmp_path, shards)}
    assert outcome.images == 12
    assert [row["image_id"] for row in rows.values() if row["error"]] == ["2-0"]
    assert "MemoryError" in str(rows["2-0"]["error"]) or "killed its process" in str(rows["2-0"]["error"])
    assert rows["2-1"]["length"] == 2


def test_a_shard_that_crashes_its_readers_is_named_and_left_out(
    tmp_path: Path, local_ray: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All twelve processes die in `make soak`, else the last three."""
    if not SOAK:
        ledger = ray.remote(ExperiencedLedger).options(num_cpus=0).remote()
        monkeypatch.setattr(engine_run, "open_ledger", lambda: ledger)
    shards = write_shards(tmp_path / "in", [[[b"a"], [b"bb"]], [[b"c"]]])
    outcome = run_units(
        [UnitTask(unit=unit) for unit in shards.units],
        images=KillingStorage(str(tmp_path / "in")),
        stages=[StageSpec(name="length", make=LengthStage, pool=POOL)],
        sink=JsonSink(Storage(str(tmp_path / "out"))),
        progress=Progress(total=shards.rows, done=0, every_seconds=60),
    )
    assert outcome.images == 2
    (problem,) = outcome.problems
    assert "shard-00001-of-00002.parquet, row group 0: 12 processes died while reading it" in problem
    assert [(tmp_path / "out" / unit.label_path).exists() for unit in shards.units] == [True, True, False]


def test_a_truncated_and_a_replaced_shard_are_named_and_the_rest_is_done(tmp_path: Path, local_ray: Resources) -> None:
    shards = write_shards(tmp_path / "in", [[[b"a" * 5000], [b"b" * 5000]], [[b"c"], [b"d"]], [[b"e"]]])
    truncated, replaced, _ = sorted((tmp_path / "in").iterdir())
    truncated.write_bytes(truncated.read_bytes()[:6000])
    write_shards(tmp_path / "other", [[[b"z"], [b"z"]], [[b"y"], [b"d"]], [[b"e"]]])
    replaced.write_bytes((tmp_path / "other" / replaced.name).read_bytes())
    outcome = run(tmp_path, shards, [StageSpec(name="length", make=LengthStage, pool=POOL)])
    problems = sorted(outcome.problems)
    assert len(problems) == 3, "both units of the truncated shard, and the one of the other that changed"
    assert all(str(truncated) in problem and "damaged" in problem for problem in problems[:2])
    assert f"{replaced}, row group 0" in problems[2]
    assert "replaced" in problems[2]
    done = {path.name for path in (tmp_path / "out" / "labels").iterdir()}
    assert done == {f"{shards.units[index].name}.parquet" for index in (3, 4)}
