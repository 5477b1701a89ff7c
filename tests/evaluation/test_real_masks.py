"""Real VOC and COCO masks: the truth as its own label scores exactly one, the truth moved by three pixels scores what
plain NumPy and OpenCV count, from disk and from S3, as the user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import evaluation_cases as cases
import pytest
import ray

from wsss_ray.config import EvaluateConfig, ShardConfig
from wsss_ray.engine.resources import Resources
from wsss_ray.evaluation.job import run
from wsss_ray.images.label_png import decode_label
from wsss_ray.sharding import job as sharding
from wsss_ray.shards.image_shards import read_shard_set
from wsss_ray.storage.storage import Storage

if TYPE_CHECKING:
    from local_s3 import S3Server
from faulty_s3 import FaultyS3
from repository import REPOSITORY

CLASSES = {"voc": 21, "coco": 81}


@pytest.fixture(scope="module")
def folders(shared: Path, local_ray: Resources, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By class set, a folder with shards/, a run whose labels are the truth (same/), and PNGs of it moved (moved/)."""
    sources = {
        "voc": ShardConfig(
            input=str(shared / "data/voc/VOCdevkit"), output="", source="voc", classes="voc", split="val"
        ),
        "coco": ShardConfig(
            input=str(shared / "data/coco/images/val2017"),
            output="",
            source="coco",
            classes="coco",
            annotations=str(shared / "data/coco/annotations/instances_val2017.json"),
        ),
    }
    made = {}
    for name, config in sources.items():
        folder = tmp_path_factory.mktemp(name)
        sharding.run(ShardConfig(**{**vars(config), "output": str(folder / "shards")}))
        images = Storage(str(folder / "shards"))
        cases.write_run(Storage(str(folder / "same")), images, read_shard_set(images), lambda _, truth: truth)
        (folder / "moved").mkdir()
        for image_id, truth in cases.truths_of(folder / "shards").items():
            (folder / "moved" / f"{image_id}.png").write_bytes(cases.png(cases.shifted(truth)))
        made[name] = folder
    return made


def configure(folder: Path, labels: str, name: str) -> EvaluateConfig:
    return EvaluateConfig(
        labels=str(folder / labels),
        images=str(folder / "shards"),
        output=str(folder / f"out-{labels}"),
        classes=name,
        bootstrap=200,
    )


@pytest.mark.parametrize("name", ["voc", "coco"])
def test_the_truth_as_its_own_label_scores_exactly_one(folders: dict[str, Path], name: str) -> None:
    evaluation = run(configure(folders[name], "same", name))
    assert evaluation.images == {"voc": 70, "coco": 100}[name]
    assert evaluation.miou == 1.0
    assert evaluation.interval == (1.0, 1.0)
    assert evaluation.pixel_accuracy == evaluation.mean_accuracy == evaluation.frequency_weighted_iou == 1.0
    assert evaluation.boundary_iou == evaluation.tagged_class_recall == 1.0
    assert evaluation.dropped_miou == evaluation.coverage == 1.0
    assert {entry.iou for entry in evaluation.classes if entry.pixels} == {1.0}


@pytest.mark.parametrize("name", ["voc", "coco"])
def test_the_truth_moved_by_three_pixels_scores_what_numpy_says(folders: dict[str, Path], name: str) -> None:
    evaluation = run(configure(folders[name], "moved", name))
    pairs = [(truth, cases.shifted(truth)) for truth in cases.truths_of(folders[name] / "shards").values()]
    both, either = cases.count_again(pairs, CLASSES[name])
    for entry, common, union in zip(evaluation.classes, both, either, strict=True):
        if entry.pixels:
            assert entry.iou == common / union, entry.name
    assert evaluation.miou == pytest.approx(cases.miou_again(pairs, CLASSES[name]), abs=1e-15)
    assert evaluation.boundary_iou == pytest.approx(cases.boundary_again(pairs, CLASSES[name]), abs=1e-15)
    assert evaluation.interval is not None
    assert 0.5 < evaluation.interval[0] < evaluation.interval[1] < 1
    assert evaluation.dropped_miou > evaluation.miou  # what moved out of the ignored border is "no class"
    assert evaluation.coverage < 1


def test_truth_from_the_folder_that_voc_ships(folders: dict[str, Path], shared: Path) -> None:
    config = configure(folders["voc"], "same", "voc")
    truth = shared / "data/voc/VOCdevkit/VOC2012/SegmentationClass"
    evaluation = run(EvaluateConfig(**{**vars(config), "truth": str(truth)}))
    assert evaluation.images == 70
    assert evaluation.miou == 1.0


def test_a_moved_mask_is_not_the_truth(folders: dict[str, Path]) -> None:
    """The pixels of the labels that the other tests score are what they are said to be."""
    image_id, truth = next(iter(cases.truths_of(folders["voc"] / "shards").items()))
    label = decode_label((folders["voc"] / "moved" / f"{image_id}.png").read_bytes())
    assert (label[:, 3:] == truth[:, :-3]).all()
    assert (label != truth).any()


def test_from_and_to_a_failing_s3(
    folders: dict[str, Path], failing_s3: FaultyS3, s3: S3Server, local_ray: Resources
) -> None:
    folder = folders["voc"]
    remote = Storage(s3.uri("evaluation"), s3.config)
    for path in Storage(str(folder)).walk():
        if path.startswith(("shards/shard-", "same/", "moved/")):
            remote.write(path, Storage(str(folder)).read(path))
    for labels in ("same", "moved"):
        config = EvaluateConfig(
            labels=failing_s3.uri(f"evaluation/{labels}"),
            images=failing_s3.uri("evaluation/shards"),
            output=failing_s3.uri(f"evaluation/out-{labels}"),
            bootstrap=200,
            storage=failing_s3.config,
        )
        evaluation = run(config)
        here = run(configure(folder, labels, "voc"))
        assert {**evaluation.to_json(), "rejected": 0} == {**here.to_json(), "rejected": 0}
        assert set(remote.list(f"out-{labels}")) == {
            "confusion.png",
            "evaluation.json",
            "evaluation.txt",
            "images.parquet",
        }


def test_the_command(folders: dict[str, Path], tmp_path: Path) -> None:
    """As a user runs it: the headline on the screen, and an exit status that tells of a gap."""
    folder = folders["voc"]
    some = tmp_path / "labels"
    some.mkdir()
    for file in sorted((folder / "moved").iterdir())[1:]:
        os.link(file, some / file.name)
    command = [sys.executable, "jobs/evaluate.py", "--labels", str(some), "--images", str(folder / "shards")]
    command += ["--output", str(tmp_path / "out"), "--split", "val", "--missing", "error", "--bootstrap", "50"]
    command += ["--ray.address", ray.get_runtime_context().gcs_address]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 1, done.stderr
    assert "split val, 70 images\n" in done.stdout, done.stderr
    assert "1 image without a label, counted as no class: " in done.stdout
    assert done.stderr.rstrip().splitlines()[-1].startswith("error: 1 images have no usable label")
