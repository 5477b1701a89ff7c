"""Recall of tagged objects: hand-computed cases, and COCO's own evaluation on real annotations."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import made_runs
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from wsss_ray.classes import ClassSet
from wsss_ray.config import EvaluateConfig, ShardConfig
from wsss_ray.engine.resources import Resources
from wsss_ray.evaluation.instances import connected_parts, count_parts, count_recalled, match, matching_parts, row_masks
from wsss_ray.evaluation.job import run
from wsss_ray.evaluation.result import Evaluation
from wsss_ray.images.header import ImageError
from wsss_ray.images.label_png import decode_label
from wsss_ray.images.rle import decode_mask, encode_mask
from wsss_ray.sharding import job as sharding
from wsss_ray.shards.image_shards import read_shard_set, read_unit
from wsss_ray.shards.instance import Instance
from wsss_ray.shards.label_files import encode_labels
from wsss_ray.shards.schemas import LABEL_SCHEMA
from wsss_ray.storage.storage import Storage

VOC = ClassSet.load("voc")
CAT, DOG = (VOC.by_name[name].id for name in ("cat", "dog"))


def box(top: int, bottom: int, left: int, right: int, size: tuple[int, int] = (20, 30)) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize(
    ("overlaps", "recalled"),
    [
        ([[0.5, 0.0]], [True, False]),
        ([[0.4999, 0.0]], [False, False]),
        ([[0.9, 0.8]], [True, False]),  # one mask recalls one object
        ([[0.9, 0.8], [0.7, 0.6]], [True, True]),  # the second gets what is free
        ([[0.6, 0.0], [0.9, 0.0]], [True, False]),
        ([[0.6, 0.6], [0.55, 0.0]], [True, True]),  # of equal ones the later, so that the second still finds one
    ],
)
def test_each_mask_recalls_one_object(overlaps: list[list[float]], recalled: list[bool]) -> None:
    assert match(np.array(overlaps)).tolist() == recalled


def test_no_mask_recalls_nothing() -> None:
    counts = count_recalled({1: [encode_mask(box(0, 5, 0, 5))]}, {2: [encode_mask(box(0, 5, 0, 5))]}, (20, 30), 3)
    assert counts.tolist() == [[0, 1, 0], [0, 0, 0]]


def test_parts_touch_by_corners_and_small_ones_are_left_out() -> None:
    indices = np.zeros((6, 8), np.uint8)
    indices[0:2, 0:2] = indices[2:4, 2:4] = 1  # eight pixels that meet at a corner
    indices[5, 0:3] = 1
    indices[0, 6] = 2
    parts = connected_parts(indices, [1, 2], smallest=4)
    assert list(parts) == [1]
    assert [int(decode_mask(counts, 6, 8).sum()) for counts in parts[1]] == [8]
    assert len(connected_parts(indices, [1, 2], smallest=1)[1]) == 2


def test_only_parts_too_small_for_any_match_are_passed_over() -> None:
    indices = np.zeros((20, 30), np.uint8)
    indices[0:2, 0:10] = 1  # 20 pixels: exactly half of the object
    indices[10, 0:19] = 1
    parts = matching_parts(indices, {1: [encode_mask(box(0, 4, 0, 10))]})
    assert [int(decode_mask(counts, 20, 30).sum()) for counts in parts[1]] == [20]


def test_parts_are_counted_as_their_masks_are() -> None:
    random = np.random.default_rng(4)
    recalled = 0
    for _ in range(60):
        truth, prediction = np.zeros((2, 20, 30), np.uint8)
        for _ in range(6):
            top, left, high, wide = random.integers([0, 0, 2, 2], [15, 25, 10, 14])
            place = int(random.integers(1, 3))
            truth[top : top + high, left : left + wide] = place
            if random.random() < 0.8:
                moved = int(random.integers(0, 3))
                prediction[top : top + high, left + moved : left + moved + wide] = place
        objects = connected_parts(truth, [1, 2], smallest=6)
        expected = count_recalled(objects, matching_parts(prediction, objects), (20, 30), 3)
        np.testing.assert_array_equal(count_parts(truth, prediction, [1, 2], 3, smallest=6), expected)
        recalled += int(expected[1].sum())
    assert recalled > 40


def test_an_instance_of_no_class_says_so() -> None:
    instance = Instance.from_row(made_runs.instance(99, box(0, 4, 0, 4)), (20, 30))
    with pytest.raises(ImageError, match="no class has the id 99"):
        row_masks([instance], {CAT: 8})


def evaluate(folder: Path, images: list[made_runs.Made], **options: Any) -> Evaluation:
    shards, labels = Storage(str(folder / "shards")), Storage(str(folder / "labels"))
    made_runs.write_run(shards, labels, [images], classes=VOC, exif="ignore")
    return run(
        EvaluateConfig(
            labels=labels.uri, images=shards.uri, output=str(folder / "out"), bootstrap=0, boundary=False, **options
        )
    )


def label(*parts: tuple[int, np.ndarray]) -> np.ndarray:
    result = np.zeros((20, 30), np.uint8)
    for class_id, mask in parts:
        result[mask] = class_id
    return result


def test_objects_are_parts_of_the_truth_and_masks_the_rows_instances(tmp_path: Path, local_ray: Resources) -> None:
    two_cats = label(
        (CAT, box(0, 10, 0, 10)), (CAT, box(0, 10, 15, 25)), (DOG, box(15, 20, 0, 30)), (CAT, box(12, 14, 0, 2))
    )
    whole = made_runs.instance(CAT, box(0, 10, 0, 25))  # one mask over both cats: IoU 100 / 250 with each
    left = made_runs.instance(CAT, box(0, 10, 0, 8))
    ignored = label((CAT, box(0, 10, 0, 10)), (255, box(0, 10, 10, 30)))
    wide = made_runs.instance(CAT, box(0, 10, 0, 30))  # right wherever there is truth
    images = [
        made_runs.Made(image_id="a", label=two_cats, truth=two_cats, tags=["cat"], instances=[whole, left]),
        made_runs.Made(image_id="b", label=ignored, truth=ignored, tags=["cat", "dog"], instances=[wide]),
        made_runs.Made(image_id="c", label=None, truth=two_cats, tags=["cat", "dog"], size=(20, 30)),
    ]
    evaluation = evaluate(tmp_path, images, smallest_object=5)
    found = {entry.name: (entry.recalled, entry.objects) for entry in evaluation.classes if entry.objects}
    assert found == {"cat": (2, 5), "dog": (0, 1)}  # a's dog is not tagged, the cat of 4 pixels no object, c failed
    assert evaluation.instance_recall == pytest.approx(2 / 6)
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert written["instance_rule"] == {
        "truth": "components",
        "smallest_pixels": 5,
        "iou": 0.5,
        "images_by_instances": 2,
        "images_by_components": 0,
    }
    assert (
        "tagged objects with a mask of their own (IoU >= 50): 33.3 of 6; objects are connected parts of the truth from "
        "5 pixels on; masks are the rows' instances (2 images)"
    ) in (tmp_path / "out" / "evaluation.txt").read_text()


def test_predictions_without_instances_are_taken_apart(tmp_path: Path, local_ray: Resources) -> None:
    truth = label((CAT, box(0, 10, 0, 10)), (CAT, box(0, 10, 15, 25)))
    joined = label((CAT, box(0, 10, 0, 25)))
    images = [
        made_runs.Made(image_id="a", label=truth, truth=truth, tags=["cat"], instances=None),
        made_runs.Made(image_id="b", label=joined, truth=truth, tags=["cat"], instances=None),
    ]
    evaluation = evaluate(tmp_path, images)
    assert evaluation.instance_recall == 0.5
    assert evaluation.instance_rule is not None
    assert (evaluation.instance_rule.by_instances, evaluation.instance_rule.by_components) == (0, 2)


def test_damaged_instances_fail_their_image(tmp_path: Path, local_ray: Resources) -> None:
    truth = label((CAT, box(0, 10, 0, 10)))
    broken = {**made_runs.instance(CAT, box(0, 4, 0, 4)), "mask": {"height": 9, "width": 9, "counts": b"x"}}
    images = [made_runs.Made(image_id="a", label=truth, truth=truth, tags=["cat"], instances=[broken])]
    reason = "label row: image a: instance 0: its mask is 9 x 9, the image 30 x 20 (width x height). Label it again."
    assert evaluate(tmp_path / "with", images).failed == {"a": reason}
    without = evaluate(tmp_path / "without", images, instances=False)
    assert (without.failed, without.instance_rule, without.miou) == ({}, None, 1.0)


def test_real_annotations_are_recalled_as_cocos_own_evaluation_says(
    shared: Path, local_ray: Resources, tmp_path: Path
) -> None:
    """Masks made of COCO's own annotations, some moved, some joined, some left out: the same counts per class."""
    annotations = shared / "data/coco/annotations/instances_val2017.json"
    classes = ClassSet.load("coco")
    folder, labels = tmp_path / "shards", Storage(str(tmp_path / "run"))
    pictures = str(shared / "data/coco/images/val2017")
    sharding.run(
        ShardConfig(input=pictures, output=str(folder), source="coco", classes="coco", annotations=str(annotations))
    )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
    ids = {Path(entry["file_name"]).stem: entry["id"] for entry in truth.dataset["images"]}
    by_category = {entry.category_id: entry.id for entry in classes.classes}
    shards, results = read_shard_set(Storage(str(folder))), []
    random = np.random.default_rng(0)
    tagged: set[tuple[int, int]] = set()
    for unit in shards.units:
        rows = []
        for row in read_unit(Storage(str(folder)), unit).to_pylist():
            number = ids[row["image_id"]]
            tagged |= {(number, classes.by_name[name].category_id or 0) for name in row["tags"]}
            found = []
            for entry in truth.loadAnns(truth.getAnnIds(imgIds=number)):
                mask = truth.annToMask(entry).astype(bool)
                choice = random.integers(4)
                if choice == 0 or not mask.any():
                    continue
                if choice == 1:
                    mask = np.roll(mask, int(random.integers(2, 30)), axis=1)
                score = float(np.float32(random.uniform()))
                found.append(made_runs.instance(by_category[entry["category_id"]], mask, score=score))
                rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
                results.append(
                    {"image_id": number, "category_id": entry["category_id"], "segmentation": rle, "score": score}
                )
            label_row = {key: row[key] for key in ("image_id", "height", "width", "tags")}
            png = row["truth"]
            rows.append({**label_row, "label": png, "instances": found, "undetected_tags": [], "status": "ok"})
            assert decode_label(png).shape == (row["height"], row["width"])
        table = made_runs.pa.Table.from_pylist(rows, schema=LABEL_SCHEMA)
        labels.write(unit.label_path, encode_labels(table, unit, {}))
    evaluation = run(
        EvaluateConfig(
            labels=labels.uri,
            images=str(folder),
            output=str(tmp_path / "out"),
            classes="coco",
            coco_annotations=str(annotations),
            bootstrap=0,
            boundary=False,
        )
    )
    with contextlib.redirect_stdout(io.StringIO()):
        judged = COCOeval(truth, truth.loadRes(results), "segm")
        judged.params.iouThrs, judged.params.maxDets = np.array([0.5]), [1000]
        judged.params.areaRng, judged.params.areaRngLbl = [[0, 1e10]], ["all"]
        judged.evaluate()
    expected: dict[int, list[int]] = {}
    for entry in filter(None, judged.evalImgs):
        if (entry["image_id"], entry["category_id"]) in tagged:
            regular = np.asarray(entry["gtIgnore"]) == 0
            counts = expected.setdefault(by_category[entry["category_id"]], [0, 0])
            counts[0] += int((np.asarray(entry["gtMatches"])[0][regular] > 0).sum())
            counts[1] += int(regular.sum())
    counted = {entry.id: [entry.recalled, entry.objects] for entry in evaluation.classes if entry.objects}
    assert counted == {class_id: counts for class_id, counts in expected.items() if counts[1]}
    assert 0.4 < evaluation.instance_recall < 0.9
    assert evaluation.miou == 1.0
