"""The whole way on drawn scenes, through every job; again; and after something was changed or lost."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from wsss_ray.cluster import Resources
from wsss_ray.config import DetectorConfig, SegmenterConfig
from wsss_ray.config.pipeline import PipelineConfig
from wsss_ray.config.student import StudentConfig
from wsss_ray.demo.scenes import write_folder
from wsss_ray.pipeline import run


def configure(folder: Path, *, iterations: int = 2) -> PipelineConfig:
    plain = PipelineConfig(output=str(folder / "out"), classes="demo", split="train")
    scenes = {"source": "folder", "images_per_unit": 4}
    train, test = (
        {
            **scenes,
            "input": str(folder / name / "images"),
            "tags": str(folder / name / "tags.jsonl"),
            "truth": str(folder / name / "truth"),
        }
        for name in ("train", "test")
    )
    return dataclasses.replace(
        plain,
        shard=dataclasses.replace(plain.shard, **train),
        test=dataclasses.replace(plain.test, **test, split="validation"),
        label=dataclasses.replace(
            plain.label, detector=DetectorConfig(model="demo"), segmenter=SegmenterConfig(model="tiny")
        ),
        train=dataclasses.replace(
            plain.train,
            preset="demo",
            iterations=iterations,
            student=StudentConfig(architecture="deeplabv2-tiny", init="none"),
        ),
        evaluate=dataclasses.replace(plain.evaluate, bootstrap=20, boundary=False),
    )


def test_every_step_once(tmp_path: Path, local_ray: Resources, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(tmp_path / "train", "train", 8, first=500_000)
    write_folder(tmp_path / "test", "validation", 4)
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
    judged = json.loads((tmp_path / "out/evaluation/predictions/evaluation.json").read_text())
    assert (judged["split"], judged["images"]) == ("validation", 4)

    capsys.readouterr()
    again = run(config)
    printed = capsys.readouterr().out
    assert {key: value for key, value in again.items() if key != "seconds"} == {
        key: value for key, value in first.items() if key != "seconds"
    }
    assert printed.count("nothing to do") == 9  # both shards, labels, student, predictions, evaluations, galleries

    shutil.rmtree(tmp_path / "out/predictions")
    run(dataclasses.replace(config, gallery=False))
    printed = capsys.readouterr().out
    assert printed.count("nothing to do") == 5  # both shards, labels and their evaluation, student
    assert "report" not in printed

    with pytest.raises(ValueError, match=r"(?s)^step train: .*another configuration.*iterations: 2 -> 3"):
        run(dataclasses.replace(config, train=dataclasses.replace(config.train, iterations=3)))
