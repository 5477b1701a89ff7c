"""What follows from a pipeline's output, what is refused, and the configurations that are shipped."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from wsss_ray.config import parse
from wsss_ray.config.pipeline import FOLLOWS, PipelineConfig
from wsss_ray.demo.scenes import write_folder
from wsss_ray.engine.resources import Resources
from wsss_ray.pipeline.job import run
from wsss_ray.pipeline.plan import make_plan


def read(tmp_path: Path, text: str, *flags: str) -> PipelineConfig:
    (tmp_path / "pipeline.yaml").write_text(text)
    return parse(PipelineConfig, ["--config", str(tmp_path / "pipeline.yaml"), *flags])


def flat(value: Any) -> list[Any]:
    if dataclasses.is_dataclass(value):
        return [item for entry in vars(value).values() for item in flat(entry)]
    return [value]


DEMO_MODELS = ["--label.detector.model", "demo", "--label.segmenter.model", "tiny"]
MINIMAL = """
output: /runs/x
classes: demo
shard: {input: photos, tags: t.csv, split: train}
train: {preset: demo, student: {architecture: deeplabv2-tiny, init: none}}
ray: {address: auto}
"""


def test_everything_follows_from_the_output(tmp_path: Path) -> None:
    plan = make_plan(read(tmp_path, MINIMAL, "--train.seed", "3", "--label.ray.actors", "2"))
    assert FOLLOWS not in flat(plan)
    assert (plan.shard.input, plan.shard.output) == ("photos", "/runs/x/shards")
    assert (plan.label.input, plan.label.output) == ("/runs/x/shards", "/runs/x/labels")
    assert (plan.train.images, plan.train.labels, plan.train.output) == (
        "/runs/x/shards",
        "/runs/x/labels",
        "/runs/x/student",
    )
    assert (plan.train.seed, plan.train.student.architecture) == (3, "deeplabv2-tiny")
    assert (plan.predict.input, plan.predict.student) == ("/runs/x/shards", "/runs/x/student")
    assert plan.predictions.evaluate.labels == plan.predict.output == "/runs/x/predictions"
    assert (plan.labels.evaluate.split, plan.predictions.evaluate.split) == ("train", "train")
    assert {plan.shard.classes, plan.label.classes, plan.train.classes, plan.labels.report.classes} == {"demo"}
    assert (plan.label.ray.address, plan.label.ray.actors, plan.predict.ray.actors) == ("auto", 2, None)
    assert (plan.test, plan.pretraining, plan.pretraining_shard) == (None, None, None)


def test_sections_have_the_pipeline_s_actors_where_they_set_none(tmp_path: Path) -> None:
    flags = ["--ray.wait-for-nodes", "--ray.actors", "8", "--ray.gpus-per-actor", "1", "--train.ray.actors", "2"]
    plan = make_plan(read(tmp_path, MINIMAL, *flags))
    assert [section.ray.actors for section in (plan.label, plan.train, plan.predict)] == [8, 2, 8]
    for section in (plan.shard, plan.label, plan.train, plan.predict, plan.labels.evaluate):
        assert (section.ray.address, section.ray.wait_for_nodes, section.ray.gpus_per_actor) == ("auto", True, 1)


def test_workers_that_cannot_share_the_batch_are_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^step train: a batch of 4 samples cannot be shared by 3 workers"):
        run(read(tmp_path, MINIMAL, "--ray.actors", "3", *DEMO_MODELS))


def test_workers_for_whom_there_is_no_place_are_refused_before_anything_runs(
    tmp_path: Path, local_ray: Resources
) -> None:
    write_folder(tmp_path / "scenes", "train", 2)
    flags = ["--train.batch-size", "100", "--train.ray.actors", "100", "--train.ray.cpus-per-actor", "1"]
    flags += ["--shard.input", str(tmp_path / "scenes/images"), "--shard.tags", str(tmp_path / "scenes/tags.jsonl")]
    flags += ["--output", str(tmp_path / "out"), *DEMO_MODELS]
    with pytest.raises(ValueError, match=r"^step train: the pools need 10\d.* cores"):
        run(read(tmp_path, MINIMAL.replace("ray: {address: auto}", ""), *flags))


def test_a_pipeline_may_train_on_other_labels_than_its_own(tmp_path: Path) -> None:
    for flags in (["--train.label-column", "truth"], ["--train.label-folder", "/others"]):
        plan = make_plan(read(tmp_path, MINIMAL, *flags))
        assert plan.train.labels is None
        assert plan.labels.evaluate.labels == "/runs/x/labels"
        with pytest.raises(ValueError, match=r"`train\.labels` is set beside .*leave it out"):
            make_plan(read(tmp_path, MINIMAL, *flags, "--train.labels", "/runs/x/labels"))


def test_test_images_and_a_first_training(tmp_path: Path) -> None:
    more = """
test: {input: others, tags: o.csv, split: val}
pretraining:
  classes: coco
  shard: {source: coco, input: coco, annotations: i.json}
  train: {iterations: 7, student: {architecture: deeplabv2-tiny, init: none}}
"""
    plan = make_plan(read(tmp_path, MINIMAL + more))
    assert plan.test is not None
    assert plan.predict.input == plan.test.output == "/runs/x/test-shards"
    assert plan.predictions.evaluate.split == "val"
    assert plan.pretraining is not None
    assert (plan.pretraining.label_column, plan.pretraining.labels) == ("truth", None)
    assert (plan.pretraining.classes, plan.pretraining.iterations) == ("coco", 7)
    assert plan.pretraining.images == "/runs/x/pretraining/shards"
    assert plan.train.student.init == "checkpoint"
    assert plan.train.student.weights == "/runs/x/pretraining/student/student.safetensors"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("output: /x", "`shard.input` is unset"),
        (MINIMAL + "label: {output: elsewhere}", r"`label.output` is 'elsewhere', but .* '/runs/x/labels'"),
        (MINIMAL + "predict: {student: other}", r"`predict.student` is 'other'.*Leave it out"),
        (MINIMAL + "label: {ray: {address: 'ray://a:1'}}", "`label.ray.address` is set"),
        (MINIMAL + "label: {storage: {region: x}}", "`label.storage` differs"),
        (MINIMAL + "evaluate: {split: val}", "`evaluate.split` names one split"),
        (
            MINIMAL + "pretraining: {shard: {input: y}}",
            "`train.student.architecture` is deeplabv2-tiny, but its first training is of deeplabv2-resnet101",
        ),
    ],
)
def test_what_contradicts_is_refused_by_its_key(tmp_path: Path, text: str, message: str) -> None:
    config = read(tmp_path, text)
    with pytest.raises(ValueError, match=message):
        make_plan(config)


def test_places_that_say_the_same_are_no_contradiction(tmp_path: Path) -> None:
    plan = make_plan(read(tmp_path, MINIMAL + "label: {output: /runs/x/labels}"))
    assert plan.label.output == "/runs/x/labels"


@pytest.mark.parametrize("name", ["voc", "coco", "demo"])
def test_the_configurations_are_complete(name: str) -> None:
    config = parse(PipelineConfig, ["--config", f"pipeline-{name}", "--output", "s3://bucket/run"])
    plan = make_plan(config)
    assert FOLLOWS not in flat(plan)
    assert plan.train.labels == "s3://bucket/run/labels"
    assert (plan.pretraining is not None) == (name == "voc")
    assert plan.test is not None
    if plan.pretraining is not None:
        assert (plan.pretraining.classes, plan.train.classes, plan.label.classes) == ("coco", "voc", "voc-raw")
        assert plan.train.student.init == "checkpoint"


def test_help_shows_every_section(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(PipelineConfig, ["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for flag in ("--shard.input", "--pretraining.train.iterations", "--predict.crf-settings.iterations"):
        assert flag in text
