"""The whole way on drawn scenes, through every job; again; and after something was changed or lost."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from made_runs import Made, write_run
from PIL import Image

from wsss_ray import sharding
from wsss_ray.classes import ClassSet
from wsss_ray.config import DetectorConfig, EvaluateConfig, SegmenterConfig
from wsss_ray.config.pipeline import PipelineConfig
from wsss_ray.config.student import StudentConfig
from wsss_ray.config.train import PRESETS
from wsss_ray.demo.scenes import write_folder
from wsss_ray.engine.resources import Resources
from wsss_ray.images.label_png import encode_label
from wsss_ray.models.student.building import build_student
from wsss_ray.models.student.files import decode_student
from wsss_ray.models.student.network import StudentNetwork
from wsss_ray.pipeline import run
from wsss_ray.pipeline.job import evaluate_once, truth_files
from wsss_ray.storage.errors import StorageError
from wsss_ray.storage.storage import Storage

ITERATIONS = 2
TINY = StudentConfig(architecture="deeplabv2-tiny", init="none")


def write_things(folder: Path, count: int) -> None:
    """Scenes whose truth knows one class, and the class set: what the student is trained on first."""
    write_folder(folder, "train", count, first=600_000)
    for path in (folder / "truth").iterdir():
        objects = np.asarray(Image.open(path)) > 0
        Image.fromarray(objects.astype(np.uint8)).save(path)
    files = [json.loads(line)["file"] for line in (folder / "tags.jsonl").read_text().splitlines()]
    lines = [json.dumps({"file": file, "tags": ["thing"]}) + "\n" for file in files]
    (folder / "tags.jsonl").write_text("".join(lines))
    (folder / "things.yaml").write_text("name: things\nclasses:\n  thing: {}\n")


def configure(folder: Path) -> PipelineConfig:
    plain = PipelineConfig(output=str(folder / "out"), classes="demo", split="train")
    scenes = {"source": "folder", "images_per_unit": 8}
    train, test, things = (
        {
            **scenes,
            "input": str(folder / name / "images"),
            "tags": str(folder / name / "tags.jsonl"),
            "truth": str(folder / name / "truth"),
        }
        for name in ("train", "test", "things")
    )
    return dataclasses.replace(
        plain,
        shard=dataclasses.replace(plain.shard, **train),
        test=dataclasses.replace(plain.test, **test, split="validation"),
        label=dataclasses.replace(
            plain.label, detector=DetectorConfig(model="demo"), segmenter=SegmenterConfig(model="tiny")
        ),
        pretraining=dataclasses.replace(
            plain.pretraining,
            classes=str(folder / "things/things.yaml"),
            shard=dataclasses.replace(plain.pretraining.shard, **things),
            train=dataclasses.replace(
                plain.pretraining.train, preset="demo", iterations=ITERATIONS, seed=1, student=TINY
            ),
        ),
        train=dataclasses.replace(plain.train, preset="demo", iterations=ITERATIONS, student=TINY),
        evaluate=dataclasses.replace(plain.evaluate, bootstrap=20, boundary=False),
    )


def test_every_step_once(tmp_path: Path, in_this_process: None, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "train", "train", 8, first=500_000)
    write_folder(tmp_path / "test", "validation", 4)
    write_things(tmp_path / "things", 4)
    config = configure(tmp_path)
    first = run(config)
    assert first["label_miou"] > 0.5
    assert 0 < first["student_miou"] < first["label_miou"]  # of two updates
    assert first["judged_on"] == str(tmp_path / "out/test-shards")
    written = json.loads((tmp_path / "out/summary.json").read_text())
    assert written == first
    for path in (
        *("shards/summary.json", "labels/run.json", "student/student.safetensors", "predictions/run.json"),
        *("evaluation/labels/evaluation.json", "evaluation/predictions/evaluation.txt"),
        *("gallery/labels/index.html", "gallery/predictions/index.html"),
    ):
        assert (tmp_path / "out" / path).exists(), path
    check_start(tmp_path / "out")
    judged = json.loads((tmp_path / "out/evaluation/predictions/evaluation.json").read_text())
    assert (judged["split"], judged["images"]) == ("validation", 4)

    capsys.readouterr()
    again = run(config)
    printed = capsys.readouterr().out
    assert {key: value for key, value in again.items() if key != "seconds"} == {
        key: value for key, value in first.items() if key != "seconds"
    }
    assert printed.count("nothing to do") == 11  # all but the end: three shards, two students, two of most others

    shutil.rmtree(tmp_path / "out/predictions")
    run(dataclasses.replace(config, gallery=False))
    printed = capsys.readouterr().out
    assert printed.count("nothing to do") == 7  # three shards, labels and their evaluation, two students
    assert "report" not in printed

    longer = dataclasses.replace(config, train=dataclasses.replace(config.train, iterations=3))
    with pytest.raises(ValueError, match=r"(?s)^step train: .*another configuration.*iterations: 2 -> 3"):
        run(longer)
    first_training = dataclasses.replace(config.pretraining.train, iterations=3)
    changed = dataclasses.replace(config, pretraining=dataclasses.replace(config.pretraining, train=first_training))
    with pytest.raises(ValueError, match=r"(?s)^step pretraining: .*another configuration.*iterations: 2 -> 3"):
        run(changed)


def check_start(output: Path) -> None:
    """The student began with the first training's backbone: two updates move a weight only so far."""
    weights = output / "pretraining/student/student.safetensors"
    identity = json.loads((output / "student/run.json").read_text())["student"]
    assert (identity["init"], identity["weights"]) == ("checkpoint", hashlib.sha256(weights.read_bytes()).hexdigest())
    first, student = (decode_student(path.read_bytes()) for path in (weights, output / "student/student.safetensors"))
    assert first.spec.class_names == ("background", "thing")
    assert student.spec.class_names == ("background", *ClassSet.load("demo").names)
    torch.manual_seed(0)
    from_nothing = build_student(TINY, ClassSet.load("demo"), weights=None)
    reach = 1.05 * ITERATIONS * PRESETS["demo"].learning_rate  # AdamW moves a weight by about the rate
    assert distance(student, first) < reach < distance(student, from_nothing)


def distance(one: StudentNetwork, other: StudentNetwork) -> float:
    """The most that a weight of their backbones differs by."""
    weights = [student.network.get_submodule("backbone").state_dict() for student in (one, other)]
    return max(float((value - weights[1][name]).abs().max()) for name, value in weights[0].items())


def test_a_mended_truth_or_list_of_images_is_judged_again(
    tmp_path: Path, local_ray: Resources, capsys: pytest.CaptureFixture[str]
) -> None:
    label = np.array([[0, 0, 1, 1]] * 4, np.uint8)
    images, labels, truth = (Storage(str(tmp_path / name)) for name in ("images", "labels", "truth"))
    made = Made(image_id="a", label=label, tags=["aeroplane"])
    write_run(images, labels, [[made]], classes=ClassSet.load("voc"), images_per_unit=4, exif="ignore")
    truth.write("a.png", encode_label(label[:, ::-1].copy(), palette=None))
    listed = tmp_path / "ids.txt"
    listed.write_text("a\n")
    config = EvaluateConfig(
        images=images.uri,
        labels=labels.uri,
        truth=truth.uri,
        subset=str(listed),
        output=str(tmp_path / "out"),
        boundary=False,
        bootstrap=0,
    )
    assert evaluate_once(config) == 0
    assert evaluate_once(config) == 0
    assert "nothing to do" in capsys.readouterr().out
    truth.write("a.png", encode_label(label, palette=None))
    assert evaluate_once(config) == 1
    assert "nothing to do" not in capsys.readouterr().out
    listed.write_text("a\nb\n")
    assert evaluate_once(config) == 1
    assert "1 images of the subset are not in the image shards" in capsys.readouterr().out


def test_mended_annotations_have_another_version(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    config = EvaluateConfig(images="images", labels="labels", output="out", coco_annotations=str(path))
    assert truth_files(config) == {}
    path.write_text("{}")
    before = truth_files(config)
    assert list(before) == ["instances.json"]
    path.write_text("[]")
    assert truth_files(config) != before


@pytest.mark.processes
def test_a_store_that_fails_is_told_with_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise StorageError("s3://bucket/a: access denied.")

    monkeypatch.setattr(sharding, "run", fail)
    with pytest.raises(StorageError, match=r"^step shard: s3://bucket/a: access denied"):
        run(configure(tmp_path))
