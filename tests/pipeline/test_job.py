"""The whole way on drawn scenes, through every job; again; and after something was changed or lost."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_runs import Made, write_run
from PIL import Image

from wsss_ray.classes import ClassSet
from wsss_ray.config import DetectorConfig, EvaluateConfig, SegmenterConfig
from wsss_ray.config.pipeline import FOLLOWS, PipelineConfig
from wsss_ray.config.student import StudentConfig
from wsss_ray.config.train import PRESETS
from wsss_ray.demo.scenes import write_folder
from wsss_ray.engine.resources import Resources
from wsss_ray.images.label_png import encode_label
from wsss_ray.models.student.building import build_student
from wsss_ray.models.student.files import decode_student
from wsss_ray.models.student.network import StudentNetwork
from wsss_ray.pipeline.job import evaluate_once, run, truth_files
from wsss_ray.pipeline.plan import make_plan
from wsss_ray.sharding import job as sharding
from wsss_ray.storage.errors import StorageError
from wsss_ray.storage.json_files import read_json
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
    draw_inputs(tmp_path)
    config = configure(tmp_path)
    first = run(config)
    assert first["label_miou"] > 0.5
    assert 0 < first["student_miou"] < first["label_miou"]  # of two updates
    assert first["judged_on"] == str(tmp_path / "out/test-shards")
    written = read_json(Storage(str(tmp_path / "out")), "summary.json")
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
    for name in ("pipeline-state.json", "evaluation.json"):
        (tmp_path / "out" / name).write_bytes(b"[" * 5000)
        assert evaluate_once(config) == 0
        assert f"evaluating again, because {tmp_path}/out/{name} is damaged" in capsys.readouterr().out
    truth.write("a.png", encode_label(label, palette=None))
    assert evaluate_once(config) == 1
    assert "nothing to do" not in capsys.readouterr().out
    listed.write_text("a\nb\n")
    assert evaluate_once(config) == 1
    assert "1 image of the subset, not in the image shards" in capsys.readouterr().out


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
def test_a_store_that_fails_is_named_with_the_step(
    tmp_path: Path, local_ray: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise StorageError("s3://bucket/a: access denied.")

    draw_inputs(tmp_path)
    monkeypatch.setattr(sharding, "run", fail)
    with pytest.raises(StorageError, match=r"^step shard: s3://bucket/a: access denied"):
        run(configure(tmp_path))


def draw_inputs(folder: Path) -> None:
    write_folder(folder / "train", "train", 8, first=500_000)
    write_folder(folder / "test", "validation", 4)
    write_things(folder / "things", 4)


def with_section(config: PipelineConfig, section: str, **changes: object) -> PipelineConfig:
    """Return the configuration with fields of one section changed."""
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **changes)})


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    draw_inputs(folder)
    (folder / "bad.json").write_text("{")
    (folder / "empty").mkdir()
    (folder / "sam.pth").write_bytes(b"no weights")
    (folder / "student.safetensors").write_bytes(b"x" * 100)
    return folder


@pytest.mark.parametrize(
    ("section", "changes", "reason"),
    [
        ("shard", {"input": "nowhere"}, "^step shard: .*nowhere"),
        ("test", {"input": "nowhere"}, "^step shard test images: .*nowhere"),
        ("test", {"source": "coco", "annotations": "bad.json"}, r"^step shard test images: .*bad\.json"),
        ("test", {"tags": "nowhere.csv"}, r"^step shard test images: .*nowhere\.csv"),
        ("label", {"segmenter": {"model": "vit_b", "checkpoint": "nowhere.pth"}}, r"^step label: .*nowhere\.pth"),
        ("label", {"segmenter": {"model": "vit_b", "checkpoint": "sam.pth"}}, r"^step label: .*sam\.pth"),
        ("label", {"segmenter": {"model": "vit_b", "checkpoint": "sam.pth", "sha256": "0" * 64}}, "^step label: .*SHA"),
        ("label", {"classes": "coco"}, "^step label: the class set coco has other names or ids"),
        ("train", {"label_folder": "empty", "labels": FOLLOWS}, "^step train: .*empty"),
        ("train", {"only": "nowhere.txt"}, r"^step train: .*nowhere\.txt"),
        ("evaluate", {"truth": "empty"}, "^step evaluate labels: .*empty"),
        ("evaluate", {"subset": "nowhere.txt"}, r"^step evaluate labels: .*nowhere\.txt"),
        ("report", {"audit": "empty"}, "^step report labels: .*empty"),
    ],
)
def test_a_wrong_section_is_found_before_the_first_step(
    inputs: Path, tmp_path: Path, section: str, changes: dict[str, Any], reason: str
) -> None:
    config = dataclasses.replace(configure(inputs), output=str(tmp_path / "out"))
    names = ("input", "annotations", "tags", "label_folder", "only", "truth", "subset", "audit")
    changes = {key: str(inputs / value) if key in names else value for key, value in changes.items()}
    if segmenter := changes.get("segmenter"):
        checkpoint = str(inputs / segmenter["checkpoint"])
        changes["segmenter"] = SegmenterConfig(**{**segmenter, "checkpoint": checkpoint})
    with pytest.raises((ValueError, StorageError), match=reason):
        run(with_section(config, section, **changes))
    assert not (tmp_path / "out").exists()


def test_initial_weights_of_another_student_are_found_before_the_first_step(inputs: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(configure(inputs), output=str(tmp_path / "out"))
    config = dataclasses.replace(config, pretraining=type(config.pretraining)())
    weights = str(inputs / "student.safetensors")
    student = StudentConfig(architecture="deeplabv2-tiny", init="checkpoint", weights=weights)
    with pytest.raises(ValueError, match=r"^step train: .*student\.safetensors is not a safetensors file"):
        run(with_section(config, "train", student=student))
    student = dataclasses.replace(student, sha256="0" * 64)
    with pytest.raises(ValueError, match=r"^step train: .*student\.safetensors has SHA-256 .*, not 0000"):
        run(with_section(config, "train", student=student))
    assert not (tmp_path / "out").exists()


def test_the_output_of_another_job_is_refused(inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/run.json").write_text("{}")
    with pytest.raises(ValueError, match="belongs to wsss-ray label or predict or train"):
        run(dataclasses.replace(configure(inputs), output=str(tmp_path / "out")))


def test_a_dry_run_plans_every_step_and_writes_nothing(
    inputs: Path, tmp_path: Path, local_ray: Resources, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(configure(inputs), output=str(tmp_path / "out"), dry_run=True)
    assert run(config) == {}
    assert not (tmp_path / "out").exists()
    lines = capsys.readouterr().out.splitlines()
    steps = make_plan(config).steps(gallery=True)
    assert len(steps) == 11
    for step in steps:
        (line,) = [line for line in lines if line.startswith(f"{step.name}  ")]
        assert re.search(r" \d+:\d\d:\d\d +[\d,]+\.\d MB  .*\d", line), line
    assert any(line.startswith("all steps ") for line in lines)
    assert any(f"{ITERATIONS} updates of 4 of 8 images" in line for line in lines)
