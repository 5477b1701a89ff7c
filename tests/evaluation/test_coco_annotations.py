"""COCO's instances JSON as truth: equal to shards that `wsss-ray shard` paints, and clear about what does not fit."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import evaluation_cases as cases
import numpy as np
import pytest
from PIL import Image

from wsss_ray.config import EvaluateConfig, ShardConfig
from wsss_ray.engine.resources import Resources
from wsss_ray.evaluation.job import run
from wsss_ray.sharding import job as sharding
from wsss_ray.storage.storage import Storage


def shard(shared: Path, output: Path, **options: Any) -> None:
    sharding.run(
        ShardConfig(
            input=str(shared / "data/coco/images/val2017"),
            output=str(output),
            classes="coco",
            images_per_unit=8,
            **options,
        )
    )


@pytest.fixture(scope="module")
def bare(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Image shards without truth, of other tags."""
    folder = tmp_path_factory.mktemp("bare")
    shard(shared, folder, source="folder", tags_for_all=("person",))
    return folder


@pytest.mark.parametrize(("order", "crowd"), [("area", "ignore"), ("json", "include"), ("area", "exclude")])
def test_it_equals_shards_that_were_painted(
    shared: Path, bare: Path, local_ray: Resources, tmp_path: Path, order: Any, crowd: Any
) -> None:
    annotations = str(shared / "data/coco/annotations/instances_val2017.json")
    shard(shared, tmp_path / "painted", source="coco", annotations=annotations, order=order, crowd=crowd)
    painted = tmp_path / "painted"
    truths = cases.truths_of(tmp_path / "painted")
    for name in ("same", "moved"):
        (tmp_path / name).mkdir()
        for image_id, truth in truths.items():
            label = truth if name == "same" else cases.shifted(truth)
            (tmp_path / name / f"{image_id}.png").write_bytes(cases.png(label))

    def judge(labels: str, images: Path, **options: Any) -> dict[str, Any]:
        given = {"labels": str(tmp_path / labels), "images": str(images), "output": str(tmp_path / "out")}
        common = {"classes": "coco", "bootstrap": 0, "boundary": False, "instances": False}
        content = run(EvaluateConfig(**{**given, **common, **options})).to_json()
        if images == bare:  # its tags are other ones
            for key in ("tagged", "found", "tagged_without_truth"):
                for entry in content["classes"]:
                    del entry[key]
            del content["tagged_class_recall"]
        return content

    direct = {"coco_annotations": annotations, "coco_order": order, "coco_crowd": crowd}
    moved = judge("moved", painted)
    assert judge("moved", painted, **direct) == moved
    assert 0.5 < moved["miou"] < 1
    if crowd != "ignore":
        return
    untagged = judge("moved", bare, **direct)
    assert untagged == {key: value for key, value in moved.items() if key in untagged} | {
        "classes": untagged["classes"]
    }
    assert [entry["iou"] for entry in untagged["classes"]] == [entry["iou"] for entry in moved["classes"]]
    same = judge("same", bare, **direct)
    assert (same["miou"], same["coverage"]) == (1.0, 1.0)
    assert same["images"] == 100


def write_case(folder: Path, *, orientation: int = 1, exif: str = "ignore", **changes: Any) -> EvaluateConfig:
    """Two images of 4 x 3 pixels (width x height), `a` annotated and `b` in no JSON."""
    stream = io.BytesIO()
    marks = Image.Exif()
    marks[0x0112] = orientation
    Image.new("RGB", (4, 3)).save(stream, "JPEG", exif=marks)
    size = (3, 4) if orientation < 5 or exif == "ignore" else (4, 3)
    cases.write_shards(
        Storage(str(folder / "shards")), {"a": None, "b": None}, image=stream.getvalue(), exif=exif, size=size
    )
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 3, "width": 4}],
        "categories": [{"id": 5, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 5, "iscrowd": 0, "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]}
        ],
        **changes,
    }
    (folder / "instances.json").write_text(json.dumps(content))
    return EvaluateConfig(
        labels=str(folder / "labels"),
        images=str(folder / "shards"),
        output=str(folder / "out"),
        coco_annotations=str(folder / "instances.json"),
        bootstrap=0,
    )


def write_labels(folder: Path, label: np.ndarray, name: str = "a") -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.png").write_bytes(cases.png(label))


STORED = np.array([[8, 8, 0, 0], [8, 8, 0, 0], [0, 0, 0, 0]], np.uint8)


def test_annotations_turn_with_their_images(tmp_path: Path, local_ray: Resources) -> None:
    config = write_case(tmp_path, orientation=6, exif="apply")
    write_labels(tmp_path / "labels", np.rot90(STORED, -1).copy())
    evaluation = run(config)
    assert (evaluation.bad_truth, evaluation.miou, evaluation.images) == ({}, 1.0, 1)


def test_images_that_the_json_does_not_list_have_no_truth(tmp_path: Path, local_ray: Resources) -> None:
    config = write_case(tmp_path)
    write_labels(tmp_path / "labels", STORED)
    evaluation = run(config)
    assert (evaluation.no_truth, evaluation.miou) == (("b",), 1.0)


def test_annotations_of_another_size_are_a_bad_truth(tmp_path: Path, local_ray: Resources) -> None:
    listed = [
        {"id": 1, "file_name": "a.jpg", "height": 5, "width": 4},
        {"id": 2, "file_name": "b.jpg", "height": 3, "width": 4},
    ]
    config = write_case(tmp_path, images=listed)
    write_labels(tmp_path / "labels", np.zeros((3, 4), np.uint8), "b")
    evaluation = run(config)
    assert evaluation.bad_truth == {
        "a": "wrong size: the annotations are for 4 x 5, the image is 4 x 3 (width x height)"
    }
    assert evaluation.miou == 1  # an image without annotations is background


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"categories": [{"id": 5, "name": "yeti"}]}, "1 categories of .* are no class of 'voc': yeti"),
        ({"images": [{"id": 1, "file_name": "z.jpg"}]}, "an id of the image shards is 'a', of the JSON 'z'"),
        ({"annotations": []}, "have no segmentation"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    config = write_case(tmp_path, **changes)
    write_labels(tmp_path / "labels", STORED)
    with pytest.raises(ValueError, match=text):
        run(config)


def test_two_truths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"coco_annotations is 'x.json': it must be unset where `truth` is given"):
        EvaluateConfig(labels="l", images="i", output="o", truth="t", coco_annotations="x.json")


def test_pngs_in_capitals_and_in_folders_below(tmp_path: Path, local_ray: Resources) -> None:
    config = write_case(tmp_path)
    (tmp_path / "labels" / "deep").mkdir(parents=True)
    (tmp_path / "labels" / "deep" / "a.PNG").write_bytes(cases.png(STORED))
    with pytest.raises(ValueError, match=r"its PNGs are in folders below: give one of them \(.*/labels/deep\)"):
        run(config)
    evaluation = run(EvaluateConfig(**{**vars(config), "labels": str(tmp_path / "labels" / "deep")}))
    assert (evaluation.missing, evaluation.miou) == ((), 1.0)
