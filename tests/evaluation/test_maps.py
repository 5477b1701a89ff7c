"""Evaluation of label maps in memory and in files: the same figures as the job's, computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wsss_ray.classes import ClassSet
from wsss_ray.evaluation.maps import evaluate_maps
from wsss_ray.images.label_png import encode_label

TRUTH = np.array([[0, 0, 1, 1], [0, 0, 1, 255]], np.uint8)
LABEL = np.array([[0, 1, 1, 1], [0, 0, 255, 1]], np.uint8)
# Background: 3 of union 5 (ignore counts as background); class 1: 2 of union 4; the pixel of ignored truth is left out.
MIOU = (3 / 5 + 2 / 4) / 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_arrays_are_evaluated(dtype: type[np.integer]) -> None:
    found = evaluate_maps([LABEL.astype(dtype)], [TRUTH.astype(dtype)], classes="voc")
    assert found.miou == pytest.approx(MIOU)
    assert (found.classes[0].iou, found.classes[1].iou) == (3 / 5, 2 / 4)
    assert (found.images, found.class_set, found.headline) == (1, "voc", "mIoU 55.0, split not stated, 1 image")


def test_png_files_and_a_class_set_are_evaluated(tmp_path: Path) -> None:
    classes = ClassSet.load("voc")
    for name, label in (("truth", TRUTH), ("label", LABEL)):
        (tmp_path / f"{name}.png").write_bytes(encode_label(label, palette=classes.palette()))
    found = evaluate_maps([tmp_path / "label.png"], [str(tmp_path / "truth.png")], classes=classes)
    assert found.miou == pytest.approx(MIOU)


def test_pixels_are_summed_over_images_and_missing_labels_count_as_background() -> None:
    found = evaluate_maps([TRUTH, LABEL, None, LABEL[:1]], [TRUTH] * 4, classes="voc")
    assert found.miou == pytest.approx(((4 + 3 + 4 + 4) / (4 + 5 + 7 + 7) + (3 + 2) / (3 + 4 + 3 + 3)) / 2)
    assert found.missing == ("2",)
    assert list(found.failed) == ["3"]
    assert "wrong size" in found.failed["3"]
    assert found.interval is not None


@pytest.mark.parametrize(
    ("labels", "truths", "text"),
    [
        ([], [], "there is no label map"),
        ([TRUTH], [TRUTH, TRUTH], "1 labels and 2 truths"),
        ([TRUTH], [TRUTH.astype(float)], "integers"),
        ([TRUTH], ["nowhere.png"], "nowhere.png"),
        ([TRUTH], [5], "a label is int"),
    ],
)
def test_inputs_that_cannot_be_evaluated_are_errors(labels: list, truths: list, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        evaluate_maps(labels, truths, classes="voc")
