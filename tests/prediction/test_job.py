"""The prediction job on a real Ray, and the jobs that read its output."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pyarrow as pa
import pytest
import ray.cloudpickle
from faulty_s3 import FaultyS3, away_once
from label_runs import label_rows, labels_by_id
from local_s3 import S3Server
from PIL import Image
from prediction_cases import CLASSES, DAMAGED, make_student
from processes import SlowStorage, killing, noted, started
from soak import SOAK

from wsss_ray.audit import job as audit
from wsss_ray.classes import ClassSet
from wsss_ray.config import AuditConfig, EvaluateConfig, ExportConfig, PredictConfig, RayConfig, ReportConfig
from wsss_ray.engine import run as engine_run
from wsss_ray.engine.resources import Resources
from wsss_ray.engine.run import run_units
from wsss_ray.engine.stage import StageSpec
from wsss_ray.engine.task import RunOutcome, UnitTask
from wsss_ray.evaluation import job as evaluation
from wsss_ray.export.job import run as run_export
from wsss_ray.images.label_png import decode_label
from wsss_ray.models.student.files import encode_student
from wsss_ray.prediction import job as prediction
from wsss_ray.prediction.soft import read_soft
from wsss_ray.report import job as report
from wsss_ray.shards.image_encoding import encode_image_shard, shard_name
from wsss_ray.shards.image_shards import read_shard_set
from wsss_ray.shards.label_files import encode_labels, read_labels
from wsss_ray.storage.storage import Storage

ray.cloudpickle.register_pickle_by_value(processes)
Configure = Callable[..., PredictConfig]


@pytest.fixture(scope="module")
def finished(configure: Configure, local_ray: Resources, tmp_path_factory: pytest.TempPathFactory) -> PredictConfig:
    """Run without faults, with PNGs and soft scores."""
    config = configure(tmp_path_factory.mktemp("finished"), png=True, soft=True)
    prediction.run(config)
    return config


def test_every_image_has_its_row_its_label_its_png_and_its_scores(
    finished: PredictConfig, scene_rows: pa.Table
) -> None:
    rows = label_rows(finished)
    assert [row["image_id"] for row in rows] == scene_rows["image_id"].to_pylist()
    assert [row["tags"] for row in rows] == scene_rows["tags"].to_pylist()
    assert all(row["instances"] is None for row in rows)
    for row in rows:
        png = Path(finished.output, "png", f"{row['image_id']}.png")
        if row["image_id"] == DAMAGED:
            assert row["status"] == "failed"
            assert not png.exists()
            continue
        with Image.open(png) as picture:
            assert bytes(picture.getpalette()) == CLASSES.palette()
            assert np.array_equal(np.array(picture), decode_label(row["label"]))
    summary = json.loads(Path(finished.output, "summary.json").read_text())
    assert summary["images"] == 6
    assert summary["statuses"] == {"ok": 5, "failed": 1}
    assert "boxes" not in summary
    assert "predict" in summary["session"]["stage_seconds"]
    units = read_shard_set(Storage(finished.input)).units
    assert [read_soft(Storage(finished.output), unit).num_rows for unit in units] == [3, 3]


def test_a_rerun_does_no_work_and_a_lost_unit_is_made_again(
    finished: PredictConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished.output, tmp_path / "run")
    config = replace(finished, output=str(tmp_path / "run"))
    before = {path.name: path.read_bytes() for path in (tmp_path / "run" / "labels").iterdir()}
    prediction.run(config)
    text = capsys.readouterr().out
    assert "nothing to do: all 6 images are predicted" in text
    assert "boxes" not in text
    lost = sorted((tmp_path / "run" / "labels").iterdir())[1]
    lost.unlink()
    prediction.run(config)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run" / "labels").iterdir()} == before
    assert "boxes" not in capsys.readouterr().out


def test_what_would_change_predictions_is_refused_by_name(finished: PredictConfig, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(encode_student(make_student(seed=5)))
    with pytest.raises(ValueError, match=r"student\.weights: ") as caught:
        prediction.run(replace(finished, student=str(other), batch_size=1))
    assert "batch_size" not in str(caught.value)
    with pytest.raises(ValueError, match=r"student\.flip: false -> true"):
        prediction.run(replace(finished, flip=True))
    with pytest.raises(ValueError, match=r"crf: \"off\" -> \{"):
        prediction.run(replace(finished, crf=True))


def test_retry_failed_runs_just_those_images_on_a_failing_s3(
    finished: PredictConfig, failing_s3: FaultyS3, s3: S3Server
) -> None:
    places = {name: failing_s3.uri(f"predict/{name}") for name in ("input", "output")}
    for name, uri in places.items():
        here, there = Storage(getattr(finished, name)), Storage(uri, s3.config)
        for path in here.walk():
            there.write(path, here.read(path))
    config = replace(finished, **places, storage=failing_s3.config, retry_failed=True)
    run = Storage(config.output, config.storage)
    unit = read_shard_set(Storage(config.input, config.storage)).units[0]
    rows = read_labels(run, unit)
    broken = rows.to_pylist()
    broken[2].update(label=None, undetected_tags=None, status="failed", error="predict: lost")
    counts = {"images": 3, "statuses": {"ok": 2, "failed": 1}, "errors": {}, "classes": {}}
    run.write(unit.label_path, encode_labels(pa.Table.from_pylist(broken, schema=rows.schema), unit, counts))
    puts = failing_s3.requests["PUT"]
    with away_once(failing_s3, lambda: failing_s3.requests["PUT"] > puts):
        summary = prediction.run(config)
    assert summary["statuses"] == {"ok": 5, "failed": 1}, "the damaged image fails again"
    assert summary["session"]["storage_retries"]["EndpointConnectionError"] >= 1
    assert read_labels(run, unit).equals(rows)


@pytest.mark.skipif(not SOAK, reason="in `make soak`: its actors are those of labelling")
@pytest.mark.timeout(1200)
def test_killed_actors_change_no_prediction(
    finished: PredictConfig,
    configure: Configure,
    scene_rows: pa.Table,
    local_ray: Resources,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    groups = [scene_rows.slice(index, 1) for index in range(6)]
    for shard, part in enumerate((groups[:3], groups[3:])):
        data = encode_image_shard(part, exif="ignore", label_space=CLASSES.label_space_digest, classes="demo")
        Storage(str(tmp_path / "in")).write(shard_name(shard, 2), data)
    config = configure(tmp_path / "out", input=str(tmp_path / "in"), soft=True)
    log, gate = tmp_path / "log", tmp_path / "gate"

    def run_slowly(
        tasks: Sequence[UnitTask], *, images: Storage, stages: Sequence[StageSpec], **rest: Any
    ) -> RunOutcome:
        stages = [replace(spec, make=functools.partial(noted, spec.make, log)) for spec in stages]
        return run_units(tasks, images=SlowStorage(images.uri, gate=gate), stages=stages, **rest)

    monkeypatch.setattr(engine_run, "run_units", run_slowly)
    kinds = {"predict": functools.partial(started, log)}
    with killing(kinds, times=10, seconds=(0.5, 4), when_done=gate) as killed:
        summary = prediction.run(config)
    assert killed == {"predict": 10}
    assert summary["statuses"] == {"ok": 5, "failed": 1}
    assert labels_by_id(config) == labels_by_id(finished)


def test_a_dry_run_plans_and_writes_nothing(
    configure: Configure, local_ray: Resources, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prediction.run(configure(tmp_path / "out", dry_run=True, limit=2, crf=True))
    text = capsys.readouterr().out
    assert "3 images in 1 units" in text
    assert "deeplabv2-tiny, scales 1 0.5, flip off, own size" in text
    assert "10 iterations" in text
    assert "s per image and actor" in text
    assert not (tmp_path / "out").exists()


def test_students_that_are_none_or_know_other_classes_are_refused(configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no student .*student\.safetensors: --student takes the output of"):
        prediction.run(configure(tmp_path / "out", student=str(tmp_path / "none")))
    file = tmp_path / "student.safetensors"
    file.write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match=r"student\.safetensors is not a safetensors file"):
        prediction.run(configure(tmp_path / "out", student=str(file)))
    file.write_bytes(encode_student(make_student(seed=0, classes=ClassSet.load("voc"))))
    with pytest.raises(ValueError, match="knows the classes of 'voc', but the shards were made with class set 'demo'"):
        prediction.run(configure(tmp_path / "out", student=str(file)))
    assert not (tmp_path / "out").exists()


def test_predictions_are_judged_shown_audited_and_exported(finished: PredictConfig, tmp_path: Path) -> None:
    places = {"labels": finished.output, "images": finished.input, "classes": "demo", "ray": RayConfig(actors=1)}
    judged = evaluation.run(EvaluateConfig(**places, output=str(tmp_path / "evaluation"), bootstrap=0))
    assert judged.images == 6
    assert len(judged.failed) == 1
    assert 0 < judged.miou < 0.5
    found = audit.run(AuditConfig(**places, output=str(tmp_path / "audit")))
    assert found["images"] == 6
    assert "same_object" in found["not_judged"]
    report.run(ReportConfig(**places, output=str(tmp_path / "gallery"), audit=str(tmp_path / "audit")))
    page = (tmp_path / "gallery" / "index.html").read_text()
    assert "deeplabv2-tiny" in page
    assert "<dt>boxes</dt>" not in page
    for name in ("voc", "coco-semantic", "huggingface"):
        run_export(ExportConfig(**places, output=str(tmp_path / name), format=name))
    exported = {path.stem for path in (tmp_path / "voc").rglob("SegmentationClass/*.png")}
    assert exported == {f"scene-{index}" for index in range(6)} - {DAMAGED}
    for name in ("coco-instances", "coco-panoptic", "yolo-seg"):
        with pytest.raises(ValueError, match=r"holds predictions: .* needs objects"):
            run_export(ExportConfig(**places, output=str(tmp_path / name), format=name))
