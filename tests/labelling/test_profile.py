"""`--profile`: the traces of an actor are JSON and contain the operations of the models."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from wsss_ray.engine.meter import Meter
from wsss_ray.labels.profiling import ProfiledStage
from wsss_ray.storage.storage import Storage


class Multiplies:
    """A stage of one matrix product, which can be held up."""

    output_schema = pa.schema([("image_id", pa.string())])

    def __init__(self) -> None:
        self.calls = 0
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, rows: pa.Table, meter: Meter) -> pa.Table:
        self.calls += 1
        with meter("segment"):
            torch.ones(64, 64) @ torch.ones(64, 64)
        self.entered.set()
        assert self.go_on.wait(30)
        return rows


def names(path: Path) -> set[str]:
    events: list[dict[str, Any]] = json.loads(path.read_text())["traceEvents"]
    return {event["name"] for event in events}


def call(stage: ProfiledStage) -> Meter:
    meter = Meter()
    assert stage(pa.table({"image_id": ["a"]}), meter).num_rows == 1
    return meter


def test_the_first_unit_and_a_later_one_are_traced_and_measured_as_ever(tmp_path: Path) -> None:
    inner = Multiplies()
    stage = ProfiledStage(inner, "label", Storage(str(tmp_path)))
    assert stage.output_schema == inner.output_schema
    meters = [call(stage) for _ in range(3)]
    assert all(meter.seconds["segment"] > 0 for meter in meters)
    files = sorted(path.name for path in (tmp_path / "profile").iterdir())
    assert files == ["label-first-unit.json", "label-later-unit.json"]
    for file in files:
        assert {"segment", "aten::mm"} <= names(tmp_path / "profile" / file)


def test_another_actor_and_a_rerun_change_nothing(tmp_path: Path) -> None:
    late = ProfiledStage(Multiplies(), "label", Storage(str(tmp_path)))  # made before there is any trace
    for _ in range(2):
        call(ProfiledStage(Multiplies(), "label", Storage(str(tmp_path))))
    before = {path: path.read_bytes() for path in (tmp_path / "profile").iterdir()}
    call(late)
    call(ProfiledStage(Multiplies(), "label", Storage(str(tmp_path))))
    assert {path: path.read_bytes() for path in before} == before


def test_a_unit_beside_a_traced_one_runs_untraced(tmp_path: Path) -> None:
    inner = Multiplies()
    inner.go_on.clear()
    stage = ProfiledStage(inner, "label", Storage(str(tmp_path)))
    threads = [threading.Thread(target=call, args=(stage,)) for _ in range(2)]
    threads[0].start()
    assert inner.entered.wait(30)
    threads[1].start()
    inner.go_on.set()
    for thread in threads:
        thread.join(60)
    assert inner.calls == 2
    assert (tmp_path / "profile" / "label-first-unit.json").exists()
