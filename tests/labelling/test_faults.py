"""The labelling job under faults: labels equal those of an undisturbed run, and each image has one row."""

from __future__ import annotations

import functools
import io
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import processes
import pyarrow as pa
import pytest
import ray.cloudpickle
import yaml
from faulty_s3 import Faults, away_once, faulty
from label_runs import label_rows, labels_by_id, write_shards
from local_s3 import S3Server
from PIL import Image
from processes import SlowStorage, descendants, killing, noted, started
from repository import REPOSITORY
from soak import SOAK

from wsss_ray.classes import ClassSet
from wsss_ray.config import LabelConfig, RayConfig
from wsss_ray.engine.progress import Progress
from wsss_ray.engine.resources import Resources
from wsss_ray.engine.run import run_units
from wsss_ray.engine.stage import Stage
from wsss_ray.engine.task import UnitTask
from wsss_ray.images.label_png import decode_label
from wsss_ray.labelling import job as labelling
from wsss_ray.labelling.plan import stage_specs
from wsss_ray.labels.sink import LabelSink
from wsss_ray.shards.image_shards import read_shard_set
from wsss_ray.storage.storage import Storage

ray.cloudpickle.register_pickle_by_value(processes)
Configure = Callable[..., LabelConfig]


@pytest.mark.skipif(not SOAK, reason="in `make soak`: eleven starts of each model; the engine's tests kill two pools")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("placement", ["fused", "split"])
def test_kills_of_the_models_change_no_label(
    photo_rows: pa.Table,
    finished: LabelConfig,
    configure: Configure,
    local_ray: Resources,
    tmp_path: Path,
    placement: str,
) -> None:
    """kill -9 of the actors with the models: of both in one, then of detectors and segmenters, with other batches."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    write_shards(Storage(str(tmp_path / "in")), photo_rows, images_per_unit=1, shards=2)
    config = configure(tmp_path / "in", tmp_path / "out", placement=placement)
    config = replace(config, ray=RayConfig(actors=1, detector_actors=1, cpus_per_actor=0.5))
    if placement == "split":
        config = replace(
            config,
            decoded_mb=1,
            detector=replace(config.detector, batch_size=1),
            segmenter=replace(config.segmenter, batch_size=2, boxes_per_chunk=3),
        )
    shards = read_shard_set(Storage(config.input))
    classes = ClassSet.load("voc")
    logs = {}
    specs = []
    for spec in stage_specs(config, classes, shards, local_ray):
        logs[spec.name] = tmp_path / f"{spec.name}.log"
        specs.append(replace(spec, make=functools.partial(noted, spec.make, logs[spec.name])))
    kinds = {name: functools.partial(started, log) for name, log in logs.items()}
    with killing(kinds, times=10, seconds=(0.5, 4), when_done=tmp_path / "gate") as killed:
        run_units(
            [UnitTask(unit=unit) for unit in shards.units],
            images=SlowStorage(config.input, gate=tmp_path / "gate"),
            stages=specs,
            sink=LabelSink(output=Storage(config.output), classes=classes, png=False, grey=False),
            progress=Progress(total=shards.rows, done=0, every_seconds=60),
        )
    assert killed == dict.fromkeys(kinds, 10)
    before, after = labels_by_id(finished), labels_by_id(config)
    if placement == "fused":
        assert after == before
    assert after.keys() == before.keys()
    same = [(decode_label(before[key]) == decode_label(after[key])).mean() for key in before]
    assert min(same) >= 0.999


def starved(make: Callable[[], Stage], megabytes: int) -> Stage:
    """Make a stage in a process that may take so much memory more than its models did."""
    stage = make()
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + megabytes * 2**20, resource.RLIM_INFINITY))
    return stage


@pytest.mark.parametrize("enough", [True, False] if SOAK else [False])
def test_an_image_of_100_megapixels_and_little_memory(
    photo_rows: pa.Table,
    finished: LabelConfig,
    configure: Configure,
    local_ray: Resources,
    tmp_path: Path,
    enough: bool,
) -> None:
    """Where it does not fit, that image fails, by an error or by the death of its process; its neighbours do not."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((10_000, 10_000)).convert("RGB").save(stream, "JPEG")
    rows = photo_rows.slice(0, 3).to_pylist()
    rows[1] |= {"image": stream.getvalue(), "height": 10_000, "width": 10_000}
    write_shards(Storage(str(tmp_path / "in")), pa.Table.from_pylist(rows, photo_rows.schema), images_per_unit=3)
    config = configure(tmp_path / "in", tmp_path / "out")
    shards = read_shard_set(Storage(config.input))
    (spec,) = stage_specs(config, ClassSet.load("voc"), shards, local_ray)
    outcome = run_units(
        [UnitTask(unit=unit) for unit in shards.units],
        images=Storage(config.input),
        stages=[replace(spec, make=functools.partial(starved, spec.make, 20_000 if enough else 700))],
        sink=LabelSink(output=Storage(config.output), classes=ClassSet.load("voc"), png=False, grey=False),
        progress=Progress(total=3, done=0, every_seconds=60),
    )
    assert outcome.images == 3
    before, huge, after = label_rows(config)
    undisturbed = labels_by_id(finished)
    assert [before["label"], after["label"]] == [undisturbed[rows[0]["image_id"]], undisturbed[rows[2]["image_id"]]]
    if enough:
        assert huge["error"] is None
        assert decode_label(huge["label"]).shape == (10_000, 10_000)
    else:
        assert huge["status"] == "failed"
        assert "memory" in str(huge["error"]).lower() or "killed its process" in str(huge["error"])


@pytest.mark.timeout(600)
def test_a_store_that_fails_and_goes_away_and_kills_change_no_label(
    photo_rows: pa.Table,
    finished: LabelConfig,
    configure: Configure,
    local_ray: Resources,
    s3: S3Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fifth of the requests are refused, some connections break, and once the server is away for a while.

    The actors with the models, whose weights come from there too, are killed meanwhile.
    """
    for kind, folder in (("detector", finished.detector.model), ("segmenter", finished.segmenter.checkpoint)):
        for name in Storage(str(folder)).list():
            Storage(s3.uri(f"faults/{kind}"), s3.config).write(name, (Path(str(folder)) / name).read_bytes())
    monkeypatch.setenv("WSSS_RAY_CACHE", str(tmp_path))
    write_shards(Storage(s3.uri("faults/in"), s3.config), photo_rows, images_per_unit=1, shards=2)
    written = Storage(s3.uri("faults/out"), s3.config)
    kinds = {"label": lambda: {pid for pid, line in descendants().items() if "UnitWorker" in line}}
    with (
        faulty(s3) as proxy,
        killing(kinds, times=2, seconds=(1, 6), when_done=tmp_path / "gate") as killed,
        away_once(proxy, lambda: written.list("labels")),
    ):
        config = configure(
            proxy.uri("faults/in"), proxy.uri("faults/out"), storage=proxy.config, png=True, profile=True
        )
        config = replace(
            config,
            detector=replace(config.detector, model=proxy.uri("faults/detector")),
            segmenter=replace(config.segmenter, checkpoint=proxy.uri("faults/segmenter")),
        )
        proxy.faults = Faults(refuse=0.2, drop=0.03, lose=0.03, cut=0.03)
        summary = labelling.run(config)
        missed = len(photo_rows) - len(written.list("labels"))
    assert killed["label"] >= 1
    quiet = replace(config, storage=s3.config)
    assert missed == 0
    assert labels_by_id(quiet) == labels_by_id(finished)
    assert sorted(written.list("png")) == sorted(path.name for path in Path(finished.output, "png").iterdir())
    trace = json.loads(written.read("profile/label-first-unit.json"))
    parts = {"decode", "detect", "segment", "encode", "aten::conv2d", "aten::scaled_dot_product_attention"}
    assert parts <= {event["name"] for event in trace["traceEvents"]}
    counts = summary["session"]["storage_retries"]
    assert counts["SlowDown"] >= 5, "read tasks and actors told what they met"
    assert counts["EndpointConnectionError"] >= 1, "the outage fell into the run"
    assert f"{sum(counts.values()):,} requests were repeated" in capsys.readouterr().out


def test_a_shard_replaced_between_two_runs_is_named(
    finished: LabelConfig, photo_rows: pa.Table, tmp_path: Path
) -> None:
    shutil.copytree(finished.output, tmp_path / "out")
    rows = photo_rows.to_pylist()
    rows[4]["tags"] = ["bus"]
    write_shards(Storage(str(tmp_path / "in")), pa.Table.from_pylist(rows, photo_rows.schema), images_per_unit=3)
    with pytest.raises(ValueError, match=r"shards: .*of other content than .*: shard-00000-of-00001\.parquet"):
        labelling.run(replace(finished, input=str(tmp_path / "in"), output=str(tmp_path / "out")))


@pytest.mark.timeout(600)
def test_two_drivers_at_once_make_every_row_once_and_another_configuration_is_refused(
    photo_rows: pa.Table,
    finished: LabelConfig,
    local_ray: Resources,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_shards(Storage(str(tmp_path / "in")), photo_rows, images_per_unit=1)
    (tmp_path / "config.yaml").write_text(
        yaml.safe_dump(
            {
                "detector": {"model": finished.detector.model},
                "segmenter": {"model": "tiny", "checkpoint": finished.segmenter.checkpoint},
                "ray": {
                    "address": ray.get_runtime_context().gcs_address,
                    "actors": 1,
                    "gpus_per_actor": 0,
                    "cpus_per_actor": 0.5,
                },
            }
        )
    )
    out = tmp_path / "out"
    command = [sys.executable, str(REPOSITORY / "jobs" / "label.py"), "--config", str(tmp_path / "config.yaml")]
    command += ["--input", str(tmp_path / "in"), "--output", str(out)]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not (out / "run.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    config = replace(finished, input=str(tmp_path / "in"), output=str(out), png=False)
    with pytest.raises(ValueError, match=r"detector\.box_threshold: 0\.3 -> 0\.9"):
        labelling.run(replace(config, detector=replace(config.detector, box_threshold=0.9)))
    labelling.run(replace(config, ray=RayConfig(actors=1, gpus_per_actor=0, cpus_per_actor=0.5)))
    told, errors = other.communicate(timeout=300)
    assert other.returncode == 0, errors[-1000:]
    here = capsys.readouterr().out
    assert not any("nothing to do" in text for text in (told, here)), "they worked at the same time"
    assert [text.count("started the run in") for text in (told, here)] == [1, 0]
    assert labels_by_id(config) == labels_by_id(finished)
    assert len(list((out / "labels").iterdir())) == 9
    assert json.loads((out / "summary.json").read_text())["images"] == 9
