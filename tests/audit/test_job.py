"""The audit job on real photos with real masks, and on rows that say what they must give."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from faulty_s3 import FaultyS3
from made_runs import Made, instance, instances_of, write_run

from wsss_ray.audit.job import _by_class, run
from wsss_ray.classes import ClassSet
from wsss_ray.config import AuditConfig
from wsss_ray.engine.resources import Resources
from wsss_ray.errors import JobError
from wsss_ray.images.label_png import decode_label
from wsss_ray.shards.image_shards import read_shard_set
from wsss_ray.storage.json_files import read_json
from wsss_ray.storage.storage import Storage

CLASSES = ClassSet.load("voc")
CAT, DOG = CLASSES.by_name["cat"].id, CLASSES.by_name["dog"].id


def cat(image_id: str, *, score: float = 0.8, mask_score: float = 0.9, truth: np.ndarray | None = None) -> Made:
    label = np.zeros((40, 60), np.uint8)
    label[10:30, 10:30] = CAT
    instances = [instance(CAT, label == CAT, score=score, mask_score=mask_score)]
    return Made(image_id=image_id, label=label, tags=["cat"], instances=instances, truth=truth)


def shards() -> list[list[Made]]:
    truth = np.zeros((40, 60), np.uint8)
    truth[10:30, 10:50] = CAT
    return [
        [
            cat("sound"),
            cat("unsure", mask_score=0.35),
            dataclasses.replace(cat("lost"), tags=["cat", "dog"]),
            cat("near", score=0.315),
        ],
        [
            Made(image_id="broken", label=None, size=(40, 60), tags=["cat"], error="decode: truncated"),
            cat("left_out", truth=truth),
            cat("agreed", truth=cat("x").label),
        ],
    ]


@pytest.fixture
def config(tmp_path: Path) -> AuditConfig:
    write_run(Storage(str(tmp_path / "images")), Storage(str(tmp_path / "labels")), shards(), classes=CLASSES)
    return AuditConfig(
        labels=str(tmp_path / "labels"), images=str(tmp_path / "images"), output=str(tmp_path / "audit"), classes="voc"
    )


def test_the_ranked_list_and_the_summary(
    config: AuditConfig, local_ray: Resources, capsys: pytest.CaptureFixture
) -> None:
    summary = run(config)
    rows = pq.read_table(Path(config.output) / "audit.parquet").to_pylist()
    assert [(row["rank"], row["image_id"]) for row in rows] == [(1, "broken"), (2, "lost"), (3, "unsure"), (4, "near")]
    assert [row["score"] for row in rows] == [1, pytest.approx(0.8), pytest.approx(0.25), pytest.approx(0.15, abs=1e-6)]
    assert [[reason["kind"] for reason in row["reasons"]] for row in rows] == [
        ["failed"],
        ["tag_without_pixels"],
        ["low_mask_score"],
        ["near_threshold"],
    ]
    assert rows[1]["reasons"][0]["class"] == "dog"
    table = list(csv.DictReader((Path(config.output) / "audit.csv").read_text().splitlines()))
    assert [(row["rank"], row["image_id"], row["kinds"]) for row in table] == [
        ("1", "broken", "failed"),
        ("2", "lost", "tag_without_pixels"),
        ("3", "unsure", "low_mask_score"),
        ("4", "near", "near_threshold"),
    ]
    assert table[1]["reasons"] == rows[1]["reasons"][0]["text"]
    assert read_json(Storage(config.output), "audit.json") == summary
    assert (summary["images"], summary["suspicious"], summary["unlabelled"]) == (7, 4, 0)
    assert summary["statuses"] == {"ok": 6, "failed": 1}
    assert summary["reasons"]["tag_without_pixels"] == 1
    assert summary["reasons"]["same_object"] == 0
    assert summary["classes"] == {"cat": {"low_mask_score": 1, "near_threshold": 1}, "dog": {"tag_without_pixels": 1}}
    counts = Counter({("covers_most", "dog"): 1, ("same_object", "cat"): 2, ("covers_most", "bird"): 1})
    assert list(_by_class(counts, ("dog", "cat", "bird"))) == ["dog", "cat", "bird"], "the class set's order"
    assert summary["not_judged"] == []
    assert not (Path(config.output) / "disagreements.parquet").exists()
    printed = capsys.readouterr().out
    assert "   2  0.800  lost: dog is tagged, and no box was found for it" in printed
    assert "4 of 7 images are suspicious" in printed


def test_regions_against_the_truth_and_equal_files_from_a_second_run(config: AuditConfig, local_ray: Resources) -> None:
    config = dataclasses.replace(config, against_truth=True)
    summary = run(config)
    (region,) = pq.read_table(Path(config.output) / "disagreements.parquet").to_pylist()
    assert (region["image_id"], region["class"], region["kind"]) == ("left_out", "cat", "truth_only")
    assert (region["box"], region["pixels"]) == ([30, 10, 50, 30], 400)
    assert summary["against_truth"]["compared"] == 2
    assert summary["against_truth"]["disagreements"] == 1
    files = {path.name: path.read_bytes() for path in Path(config.output).iterdir()}
    run(config)
    assert {path.name: path.read_bytes() for path in Path(config.output).iterdir()} == files


@pytest.mark.parametrize("against_truth", [False, True])
def test_a_damaged_label_file_fails_its_images_and_the_job_at_its_end(
    config: AuditConfig, local_ray: Resources, *, against_truth: bool
) -> None:
    first = min((Path(config.labels) / "labels").iterdir())
    first.write_bytes(first.read_bytes()[:400])
    with pytest.raises(JobError, match=r"1 label files cannot be used.*replaces a damaged label file"):
        run(dataclasses.replace(config, against_truth=against_truth))
    summary = read_json(Storage(config.output), "audit.json")
    assert list(summary["damaged_label_files"]) == [first.stem]
    assert summary["images"] == 7
    assert summary["statuses"]["failed"] in (2, 3)
    rows = pq.read_table(Path(config.output) / "audit.parquet").to_pylist()
    failed = [row for row in rows if row["unit"] == first.stem]
    assert len(failed) == 2
    assert all("is truncated or no Parquet file" in row["reasons"][0]["text"] for row in failed)


def test_predictions_have_no_boxes_to_judge(tmp_path: Path, local_ray: Resources) -> None:
    made = [[dataclasses.replace(image, instances=None) for image in shard] for shard in shards()]
    images, labels = Storage(str(tmp_path / "images")), Storage(str(tmp_path / "predictions"))
    write_run(images, labels, made, classes=CLASSES)
    labels.write("run.json", json.dumps({"shards": read_shard_set(images).digest}).encode())
    summary = run(AuditConfig(labels=labels.uri, images=images.uri, output=str(tmp_path / "audit"), against_truth=True))
    assert summary["not_judged"] == ["same_object", "low_mask_score", "near_threshold"]
    assert summary["reasons"] == {"failed": 1, "tag_without_pixels": 1, "covers_most": 0, "covers_little": 0}
    assert summary["against_truth"]["compared"] == 0


def test_what_cannot_be_audited_is_said(config: AuditConfig, tmp_path: Path) -> None:
    truthless = Storage(str(tmp_path / "truthless"))
    write_run(truthless, Storage(str(tmp_path / "their_labels")), [[cat("a")]], classes=CLASSES)
    with pytest.raises(ValueError, match="made from other image shards"):
        run(dataclasses.replace(config, images=truthless.uri))
    with pytest.raises(ValueError, match="hold no human labels"):
        run(
            dataclasses.replace(config, labels=str(tmp_path / "their_labels"), images=truthless.uri, against_truth=True)
        )
    with pytest.raises(ValueError, match=r"run\.json"):
        run(dataclasses.replace(config, labels=str(tmp_path / "nowhere")))
    with pytest.raises(ValueError, match="largest_share"):
        dataclasses.replace(config, largest_share=95)


def test_from_and_to_a_failing_s3(failing_s3: FaultyS3, local_ray: Resources) -> None:
    images, labels = (
        Storage(failing_s3.uri("audit/images"), failing_s3.config),
        Storage(failing_s3.uri("audit/labels"), failing_s3.config),
    )
    write_run(images, labels, shards()[:1], classes=CLASSES)
    output = Storage(failing_s3.uri("audit/out"), failing_s3.config)
    run(AuditConfig(labels=labels.uri, images=images.uri, output=output.uri, storage=failing_s3.config))
    assert list(output.list()) == ["audit.csv", "audit.json", "audit.parquet"]


def test_truth_as_label_has_no_region_and_a_shifted_one_has(shared: Path, tmp_path: Path, local_ray: Resources) -> None:
    """Real masks: against themselves nothing is to be corrected; against themselves moved, the moved edges are."""
    root = shared / "data/voc/VOCdevkit/VOC2012"
    ids = (root / "ImageSets/Segmentation/val.txt").read_text().split()[:6]
    for shift in (0, 12):
        images, labels = Storage(str(tmp_path / f"images{shift}")), Storage(str(tmp_path / f"labels{shift}"))
        made = [real_image(root, image_id, shift) for image_id in ids]
        write_run(images, labels, [made], classes=CLASSES)
        output = str(tmp_path / f"audit{shift}")
        summary = run(AuditConfig(labels=labels.uri, images=images.uri, output=output, against_truth=True))
        assert summary["against_truth"]["compared"] == len(ids)
        assert (summary["against_truth"]["disagreements"] > 0) == (shift > 0)


def real_image(root: Path, image_id: str, shift: int) -> Made:
    truth = decode_label((root / f"SegmentationClass/{image_id}.png").read_bytes())
    label = np.roll(np.where(truth == CLASSES.ignore_id, 0, truth), shift, axis=1).astype(np.uint8)
    tags = [CLASSES.by_id[i].name for i in np.unique(truth).tolist() if i in CLASSES.by_id]
    instances = instances_of(label, CLASSES, np.random.default_rng(0))
    data = (root / f"JPEGImages/{image_id}.jpg").read_bytes()
    return Made(image_id=image_id, label=label, tags=tags, instances=instances, truth=truth, image=data)
