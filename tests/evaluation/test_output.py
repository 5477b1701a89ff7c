"""What a reader sees: the table, the headline, and the picture of the confusion matrix."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from wsss_ray.classes import ClassSet
from wsss_ray.evaluation.confusion_image import colors, draw_confusion
from wsss_ray.evaluation.result import Evaluation, conclude
from wsss_ray.evaluation.tables import format_tables
from wsss_ray.evaluation.tally import IMAGES_SCHEMA, Tally
from wsss_ray.labels.scores import ClassIndex


def evaluate(matrix: np.ndarray, names: list[str], **options: object) -> Evaluation:
    """An evaluation of one image with this (C + 1, C + 1) matrix; states of further images by id in `states`."""
    index = ClassIndex.of(ClassSet.from_names(names))
    tally = Tally.zero(index.count)
    tally.matrix += matrix
    states = {"one": "evaluated", **options.pop("states", {})}  # type: ignore[dict-item]
    rows = [
        {
            "image_id": image_id,
            "state": state,
            "reason": "truncated: it ends early" if state in ("failed", "bad_truth") else None,
            "miou": None,
            "class_ids": [0] if state == "evaluated" else [],
            "truth": [9] if state == "evaluated" else [],
            "predicted": [9] if state == "evaluated" else [],
            "both": [9] if state == "evaluated" else [],
        }
        for image_id, state in states.items()
    ]
    given = {
        "split": "train",
        "class_set": "x",
        "boundary": False,
        "instance_rule": None,
        "resamples": 0,
        "seed": 0,
        "subset": None,
    }
    images = pa.Table.from_pylist(rows, schema=IMAGES_SCHEMA)
    return conclude(tally, images, index, **{"rejected": 0, "images_per_second": 1.0, **given, **options})  # type: ignore[arg-type]


MATRIX = np.array([[90, 5, 0, 5], [10, 1190, 0, 0], [0, 0, 0, 0], [7, 7, 7, 7]])


def test_the_table() -> None:
    lines = format_tables(evaluate(MATRIX, ["cat", "dog"])).splitlines()
    assert lines[:4] == [
        "class           IoU  precision   recall  boundary      found      objects          pixels   images",
        "background     86.4       90.5     95.0         -          -            -             100        1",
        "cat            98.8       99.6     99.2         -          -            -           1,200        0",
        "dog               -          -        -         -          -            -               0        0",
    ]
    assert "means over the 2 of 3 classes present in the truth, background included; in %" in lines
    assert lines[-1] == "mIoU 92.6, split train, 1 image"
    assert "coverage 99.62" in lines[-3]


def test_images_that_were_not_judged_are_told_by_kind() -> None:
    states = {"m1": "missing", "m2": "missing", "f": "failed", "n": "no_truth", "b": "bad_truth"}
    evaluation = evaluate(MATRIX, ["cat", "dog"], states=states, subset=frozenset(["one", "m1", "gone"]), rejected=3)
    text = format_tables(evaluation)
    assert "2 images without a label, counted as no class: m1, m2\n" in text
    assert "1 image with a failed label, counted as no class:\n  f: truncated: it ends early\n" in text
    assert "1 image without a truth, not evaluated: n\n" in text
    assert "1 image with a bad truth, not evaluated:\n  b: truncated: it ends early\n" in text
    assert "1 image of the subset, not in the image shards, not evaluated: gone\n" in text
    assert "3 images rejected by wsss-ray shard, not evaluated" in text
    assert evaluation.images == 4


def test_long_lists_are_cut_in_the_text_and_whole_in_the_json() -> None:
    states = {f"m{number}": "missing" for number in range(50)}
    evaluation = evaluate(MATRIX, ["cat", "dog"], states=states)
    assert "50 images without a label, counted as no class: m0, m1, m2, m3, m4, ...\n" in format_tables(evaluation)
    assert evaluation.to_json()["missing"] == list(states)


def test_json_has_no_nan() -> None:
    text = json.dumps(evaluate(np.zeros((4, 4)).astype(int), ["cat", "dog"]).to_json(), allow_nan=False)
    content = json.loads(text)
    assert content["miou"] is None
    assert content["classes"][1]["iou"] is None
    assert content["confusion"]["pixels"] == [[0, 0, 0, 0]] * 3
    assert content["confusion"]["prediction_across"] == ["background", "cat", "dog", "ignore"]


def test_colours_darken_with_the_share() -> None:
    lightness = colors(np.linspace(0, 1, 200)).astype(int) @ [2, 7, 1]
    assert (np.diff(lightness) <= 0).all()
    assert colors(np.array(0.0)).tolist() == [255, 255, 255]
    assert colors(np.array(0.01)).tolist() != [255, 255, 255]
    assert colors(np.array(np.nan)).tolist() == [225, 225, 225]


def test_the_picture_shows_each_cell_in_its_place() -> None:
    evaluation = evaluate(MATRIX, ["cat", "dog"])
    picture = np.array(Image.open(io.BytesIO(draw_confusion(evaluation))))
    wanted = colors(np.array([[0.9, 0.05, 0, 0.05], [10 / 1200, 1190 / 1200, 0, 0], [np.nan] * 4]))
    # The row of the absent class is grey over four cells of 34 pixels, less the lines between: it tells where they are.
    grey_rows = [y for y in range(picture.shape[0]) if ((picture[y] == 225).all(axis=-1)).sum() == 4 * 33]
    grey = np.flatnonzero((picture[grey_rows[0]] == 225).all(axis=-1))
    left, top = grey[0], grey_rows[0] - 2 * 34
    for row in range(3):
        for column in range(4):
            corner = picture[top + row * 34 + 2, left + column * 34 + 2]
            assert corner.tolist() == wanted[row, column].tolist(), (row, column)


@pytest.mark.parametrize("count", [1, 25, 26, 80, 200, 700])
def test_any_number_of_classes_and_any_name_gives_a_picture(count: int) -> None:
    names = ["a name that is much longer than any column has room for", "naïve – 猫", "<script>"][:count]
    names += [f"class {number}" for number in range(count - len(names))]
    matrix = np.eye(count + 2, dtype=int) * 5
    with Image.open(io.BytesIO(draw_confusion(evaluate(matrix, names)))) as picture:
        assert picture.width >= 520
        assert max(picture.size) < 3200
        picture.load()
