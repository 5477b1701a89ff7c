"""COCO's JSON and PNGs, read by pycocotools and, as the panoptic API does, by hand."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_cases import (
    CAT,
    DOG,
    EXPORTED,
    FRONT,
    HEIGHT,
    IGNORE,
    PERSON,
    PIECES,
    WIDTH,
    Run,
    box,
    read_json,
    write_made,
)
from made_runs import Made, instance
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from repository import REPOSITORY

from wsss_ray.classes import ClassSet
from wsss_ray.export.coco_file import image_numbers
from wsss_ray.images.rle import decode_mask


def image_of(coco: COCO, image_id: str) -> dict[str, Any]:
    return next(image for image in coco.loadImgs(coco.getImgIds()) if image["name"] == image_id)


def test_pycocotools_reads_every_mask(run: Run) -> None:
    output, summary = run.export("coco-instances", split="val")
    coco = COCO(str(output / "annotations" / "instances_val.json"))
    assert sorted(coco.getImgIds()) == list(range(1, len(EXPORTED) + 1))
    numbers = sorted(coco.getAnnIds())
    assert numbers == list(range(1, summary.counts["annotations"] + 1))
    for made in EXPORTED:
        image = image_of(coco, made.image_id)
        assert (output / "val" / image["file_name"]).read_bytes() == made.image
        assert (image["height"], image["width"]) == (HEIGHT, WIDTH)
        found = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        expected = [entry for entry in made.instances if decode_mask(entry["mask"]["counts"], HEIGHT, WIDTH).any()]
        for annotation, entry in zip(found, expected, strict=True):
            mask = decode_mask(entry["mask"]["counts"], HEIGHT, WIDTH)
            np.testing.assert_array_equal(coco.annToMask(annotation).astype(bool), mask)
            rows, columns = np.nonzero(mask)
            tight = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert annotation["bbox"] == tight
            assert annotation["area"] == mask.sum()
            assert annotation["iscrowd"] == 0
            assert annotation["category_id"] == entry["class_id"], "VOC has no category ids of its own"
            assert annotation["score"] == entry["score"]
    assert summary.counts["empty masks left out"] == 1


def test_an_annotation_keeps_what_the_models_said(run: Run) -> None:
    output, _ = run.export("coco-instances")
    coco = COCO(str(output / "annotations" / "instances_train.json"))
    front = coco.loadAnns(coco.getAnnIds(imgIds=image_of(coco, "overlap.2Fx.20y")["id"]))[0]
    assert front["bbox"] == [20, 20, 40, 30]
    assert front["detector_bbox"] == [19.5, 20.25, 41.5, 29.75]
    assert (front["phrase"], front["score"], front["mask_score"]) == ("person", 0.9, 0.9)
    assert isinstance(front["segmentation"]["counts"], str)
    names = {entry["id"]: entry["name"] for entry in coco.loadCats(coco.getCatIds())}
    assert names == {entry.id: entry.name for entry in ClassSet.load("voc").classes}


def test_as_results_they_score_1_against_themselves(run: Run) -> None:
    output, _ = run.export("coco-instances")
    coco = COCO(str(output / "annotations" / "instances_train.json"))
    results = coco.loadRes(read_json(output / "annotations" / "instances_train.json")["annotations"])
    for kind in ("segm", "bbox"):
        evaluation = COCOeval(coco, results, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert evaluation.stats[0] == pytest.approx(1)


def test_cocos_own_images_and_categories_keep_their_numbers(tmp_path: Path) -> None:
    mask = box(0, 0, 10, 10)
    made = [
        Made(
            image_id=f"COCO_train2014_{number:012d}",
            label=np.where(mask, 80, 0).astype(np.uint8),
            tags=["toothbrush"],
            instances=[instance(80, mask)],
        )
        for number in (9, 25)
    ]
    run = write_made(tmp_path, made, classes="coco")
    output, _ = run.export("coco-instances", classes="coco")
    coco = COCO(str(output / "annotations" / "instances_train.json"))
    assert coco.getImgIds() == [9, 25]
    assert [annotation["category_id"] for annotation in coco.loadAnns(coco.getAnnIds())] == [90, 90]
    assert coco.loadCats([90])[0]["name"] == "toothbrush"
    assert len(coco.getCatIds()) == 80
    output, _ = run.export("coco-semantic", classes="coco")
    png = np.asarray(Image.open(output / "annotations" / "semantic_train" / f"{made[0].image_id}.png"))
    np.testing.assert_array_equal(png, np.where(mask, 90, 0))


@pytest.mark.parametrize(
    ("image_ids", "numbers"),
    [
        (["000000000139", "000000000285"], [139, 285]),
        (["COCO_val2014_000000000042"], [42]),
        (["000000000139", "x"], [1, 2]),
        (["COCO_train2014_000000000042", "COCO_val2014_000000000042"], [1, 2]),
        (["2007_000063", "2007_000392"], [1, 2]),
        ([], []),
    ],
)
def test_numbers_of_images(image_ids: list[str], numbers: list[int]) -> None:
    assert list(image_numbers(image_ids).values()) == numbers


def test_without_images_the_original_paths_are_named(run: Run) -> None:
    output, _ = run.export("coco-instances", copy_images=False)
    content = read_json(output / "annotations" / "instances_train.json")
    assert content["images"][0]["file_name"] == "ring.jpg"
    assert not (output / "train").exists()


def test_panoptic_pngs_and_segments_agree(run: Run) -> None:
    """As the panoptic API checks them: every id of the PNG is described once, areas are right, void is 0."""
    output, summary = run.export("coco-panoptic")
    content = read_json(output / "annotations" / "panoptic_train.json")
    images = {image["id"]: image for image in content["images"]}
    things = {entry["id"] for entry in content["categories"] if entry["isthing"]}
    assert [annotation["image_id"] for annotation in content["annotations"]] == list(images)
    for annotation, made in zip(content["annotations"], EXPORTED, strict=True):
        assert images[annotation["image_id"]]["name"] == made.image_id
        rgb = np.asarray(Image.open(output / "annotations" / "panoptic_train" / annotation["file_name"]))
        assert rgb.dtype == np.uint8
        assert rgb.shape == (HEIGHT, WIDTH, 3)
        ids = rgb.astype(np.uint32) @ np.array([1, 256, 65536], np.uint32)
        described = {segment["id"]: segment for segment in annotation["segments_info"]}
        assert set(np.unique(ids)) - {0} == set(described)
        assert len(described) == len(annotation["segments_info"])
        semantic = np.zeros((HEIGHT, WIDTH), int)
        for number, segment in described.items():
            mask = ids == number
            assert segment["area"] == mask.sum()
            rows, columns = np.nonzero(mask)
            assert segment["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert segment["category_id"] in things
            semantic[mask] = segment["category_id"]
        np.testing.assert_array_equal(semantic, np.where(made.label == IGNORE, 0, made.label))
    overlap = next(a for a in content["annotations"] if images[a["image_id"]]["name"] == "overlap.2Fx.20y")
    front, dog, back = overlap["segments_info"]
    assert (front["area"], front["score"]) == (FRONT.sum(), 0.9)
    assert (dog["category_id"], dog["area"]) == (DOG, 900 - 400 - (20 * 20 - 10 * 10))
    assert (back["category_id"], back["area"]) == (PERSON, 900 - 100)
    changed = content["annotations"][-1]["segments_info"]
    assert [(segment["category_id"], segment["iscrowd"], segment["area"]) for segment in changed] == [
        (CAT, 0, 450),
        (CAT, 1, 375),
    ]
    assert summary.counts["segments without a mask of their own"] == 1


def test_semantic_pngs_hold_category_ids(run: Run) -> None:
    output, _ = run.export("coco-semantic")
    content = read_json(output / "annotations" / "semantic_train.json")
    assert (content["background_id"], content["ignore_id"]) == (0, 255)
    for annotation, made in zip(content["annotations"], EXPORTED, strict=True):
        image = Image.open(output / "annotations" / "semantic_train" / annotation["file_name"])
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), made.label)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        # class: (id, category); then value of background, ignore, and of each class
        ({"a": (1, 5), "b": (2, 9)}, {0: 0, 255: 255, 1: 5, 2: 9}),
        ({"a": (1, 0), "b": (2, 9)}, {0: 10, 255: 255, 1: 0, 2: 9}),
        ({"a": (1, 255), "b": (2, 9)}, {0: 0, 255: 65535, 1: 255, 2: 9}),
        ({"a": (7, None), "b": (2, 9)}, {0: 0, 255: 255, 7: 7, 2: 2}),
    ],
)
def test_values_never_collide(tmp_path: Path, ids: dict[str, tuple[int, int | None]], expected: dict[int, int]) -> None:
    lines = [
        f"  {name}: {{id: {class_id}" + (f", category_id: {category}}}" if category is not None else "}")
        for name, (class_id, category) in ids.items()
    ]
    classes = tmp_path / "mine.yaml"
    classes.write_text("\n".join(["name: mine", "classes:", *lines]))
    label = np.array([list(expected)], np.uint8)
    made = Made(image_id="a", label=label, tags=["a"])
    output, _ = write_made(tmp_path, [made], classes=str(classes)).export("coco-semantic", classes=str(classes))
    values = np.asarray(Image.open(output / "annotations" / "semantic_train" / "a.png"))
    assert values.tolist() == [list(expected.values())]
    content = read_json(output / "annotations" / "semantic_train.json")
    assert (content["background_id"], content["ignore_id"]) == (expected[0], expected[255])


def test_pieces_are_one_annotation(run: Run) -> None:
    output, _ = run.export("coco-instances")
    coco = COCO(str(output / "annotations" / "instances_train.json"))
    (annotation,) = coco.loadAnns(coco.getAnnIds(imgIds=image_of(coco, "pieces")["id"]))
    assert annotation["area"] == PIECES.sum() == 825


_PEAK = """
import sys
from pathlib import Path

import numpy as np
from export_cases import CAT, write_made
from made_runs import Made, instance

label = np.zeros((9000, 9000), np.uint8)
label[1000:8000, 1000:8000] = CAT
made = Made(image_id="a", label=label, tags=["cat"], instances=[instance(CAT, label > 0)])
run = write_made(Path(sys.argv[1]), [made])
del label, made
Path("/proc/self/clear_refs").write_text("5")  # the peak of what has been done so far
run.export("coco-panoptic")
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(status["VmHWM"])
"""


def test_a_large_image_takes_little_memory(tmp_path: Path) -> None:
    """81 million pixels: a map of 8-byte indices alone would take 650 MB."""
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests/support'}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    kilobytes = int(done.stdout.split()[0])
    assert kilobytes < 1.5e6, done.stdout
