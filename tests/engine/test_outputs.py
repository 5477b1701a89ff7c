"""Every job refuses an output that is, holds or lies in what it reads, or that another job has claimed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from local_s3 import S3Server

from wsss_ray.audit import job as audit
from wsss_ray.config import (
    AuditConfig,
    EvaluateConfig,
    ExportConfig,
    LabelConfig,
    PredictConfig,
    ReportConfig,
    ShardConfig,
    TrainConfig,
)
from wsss_ray.engine.outputs import MARKERS, check_claim, check_output
from wsss_ray.evaluation import job as evaluation
from wsss_ray.export import job as export
from wsss_ray.labelling import job as labelling
from wsss_ray.prediction import job as prediction
from wsss_ray.report import job as report
from wsss_ray.sharding import job as sharding
from wsss_ray.storage.storage import Storage
from wsss_ray.training import job as training


def shard(output: str, images: str, labels: str) -> None:
    sharding.run(ShardConfig(input=images, output=output, truth=labels))


def label(output: str, images: str, labels: str) -> None:
    labelling.run(LabelConfig(input=images, output=output))


def predict(output: str, images: str, labels: str) -> None:
    prediction.run(PredictConfig(input=images, output=output, student=labels))


def train(output: str, images: str, labels: str) -> None:
    training.run(TrainConfig(images=images, labels=labels, output=output))


def evaluate(output: str, images: str, labels: str) -> None:
    evaluation.run(EvaluateConfig(images=images, labels=labels, output=output))


def rank(output: str, images: str, labels: str) -> None:
    audit.run(AuditConfig(images=images, labels=labels, output=output))


def show(output: str, images: str, labels: str) -> None:
    report.run(ReportConfig(images=images, labels=labels, output=output))


def write(output: str, images: str, labels: str) -> None:
    export.run(ExportConfig(images=images, labels=labels, output=output, format="voc"))


JOBS = {
    "shard": shard,
    "label": label,
    "predict": predict,
    "train": train,
    "evaluate": evaluate,
    "audit": rank,
    "report": show,
    "export": write,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images, a run, and links to both."""
    (tmp_path / "in/images").mkdir(parents=True)
    (tmp_path / "in/images/summary.json").write_text("of the shards")
    (tmp_path / "in/run/labels").mkdir(parents=True)
    (tmp_path / "in/run/run.json").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "in/images", target_is_directory=True)
    return tmp_path


def content(folder: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("in/images", "is what"),
        ("link", "is what"),
        ("in/images/deeper/out", "lies in"),
        ("link/out", "lies in"),
        ("in", "holds"),
        (".", "holds"),
        ("in/other/../images", "is what"),
    ],
)
def test_an_output_that_touches_the_images_is_refused(
    job: Callable[..., None], output: str, words: str, folder: Path
) -> None:
    before = content(folder)
    with pytest.raises(ValueError, match=rf"the output .* {words}.*give another --output"):
        job(str(folder / output), str(folder / "in/images"), str(folder / "in/run"))
    with pytest.raises(ValueError, match=rf"the output .* {words}.*give another --output"):
        job(f"file://{folder}/{output}", str(folder / "in/images"), str(folder / "in/run"))
    assert content(folder) == before


@pytest.mark.parametrize("job", [train, evaluate, rank, show, write])
@pytest.mark.parametrize("output", ["in/run", "in/run/labels", "in/run/labels/x", "in/run/png"])
def test_an_output_that_touches_the_run_is_refused(job: Callable[..., None], output: str, folder: Path) -> None:
    before = content(folder)
    with pytest.raises(ValueError, match=r"the output .*give another --output"):
        job(str(folder / output), str(folder / "in/images"), str(folder / "in/run"))
    assert content(folder) == before


def test_a_folder_of_its_own_in_a_run_is_an_output(folder: Path) -> None:
    run, images = str(folder / "in/run"), str(folder / "in/images")
    check_output(EvaluateConfig(labels=run, images=images, output=f"{run}/evaluation"), job="evaluate")
    (folder / "in/run/run.json").unlink()  # now it is a folder of any label PNGs
    with pytest.raises(ValueError, match="lies in"):
        check_output(EvaluateConfig(labels=run, images=images, output=f"{run}/evaluation"), job="evaluate")


@pytest.mark.parametrize("output", ["labels", "labels/more", "png/a/b"])
def test_a_folder_that_another_run_writes_is_refused(output: str, folder: Path) -> None:
    other = folder / "other"
    (other / output).mkdir(parents=True)
    (other / "run.json").write_text("{}")
    for name, job in JOBS.items():
        with pytest.raises(ValueError, match=rf"lies in .*other/{output.partition('/')[0]}, which the run .* writes"):
            job(str(other / output), str(folder / "in/images"), str(folder / "in/run"))
        assert not list((other / output).iterdir()), name
    check_claim(Storage(str(other / "evaluation")), job="evaluate")


@pytest.mark.parametrize(("marker", "owners"), MARKERS.items())
def test_the_folder_of_another_job_is_refused(marker: str, owners: tuple[str, ...], folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / marker).write_text("{}")
    for name, job in JOBS.items():
        if name not in owners:
            with pytest.raises(ValueError, match=rf"out belongs to wsss-ray {owners[0]}.*\(it holds {marker}\)"):
                job(str(folder / "out"), str(folder / "in/images"), str(folder / "in/run"))
    config = ShardConfig(input=str(folder / "in/images"), output=str(folder / "out"))
    for owner in owners:
        check_output(config, job=owner)


def test_addresses_of_a_store_are_compared_too(s3: S3Server) -> None:
    config: dict[str, Any] = {"input": s3.uri("outputs/in"), "storage": s3.config}
    Storage(s3.uri("outputs/in"), s3.config).write("a.jpg", b"")
    for output in ("outputs/in", "outputs/in/", "outputs/in/out", "outputs"):
        with pytest.raises(ValueError, match="give another --output"):
            sharding.run(ShardConfig(**config, output=s3.uri(output)))
    with pytest.raises(ValueError, match="give another --output"):
        sharding.run(ShardConfig(**config, output=s3.uri("outputs/in").replace("s3://", "s3a://")))
    check_output(ShardConfig(**config, output=s3.uri("outputs/in-shards")), job="shard")


def test_files_that_a_job_reads_are_protected(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out/student.safetensors").write_text("weights")
    for name in ("out", "out/../out"):
        with pytest.raises(ValueError, match=r"holds .*student\.safetensors, which --student reads"):
            predict(str(folder / name), str(folder / "in/images"), str(folder / "out/student.safetensors"))


def test_the_name_of_a_hub_s_model_is_no_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    check_output(LabelConfig(input="in/images", output="IDEA-Research"), job="label")
