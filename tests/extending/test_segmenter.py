"""A segmenter and a fusion rule from outside of the package, each in a few lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from wsss_ray import ClassSet, Labeller
from wsss_ray.config import DetectorConfig, FusionConfig, LabelConfig, LabellerConfig, SegmenterConfig
from wsss_ray.export.records import Record
from wsss_ray.export.segments import divide_label
from wsss_ray.labelling.plan import describe_models
from wsss_ray.models.fusion import LabelMapBuilder
from wsss_ray.models.protocols import Detector, Segmenter, Weights
from wsss_ray.models.registries import FUSION_RULES, SEGMENTERS
from wsss_ray.models.results import Detections, MaskCrop


@SEGMENTERS.register("whole-box")
class WholeBox(Segmenter):
    """Every pixel of the box."""

    def __init__(self, config: SegmenterConfig, *, checkpoint: str | None = None) -> None:
        self.score = float(config.options.get("score", 1.0))

    def masks(self, prepared: Iterable[Any], *, probabilities: bool = False) -> Iterator[tuple[int, MaskCrop]]:
        for index, _, boxes in prepared:
            for number, (left, top, right, bottom) in enumerate(boxes.astype(int)):
                mask = np.ones((bottom - top, right - left), bool)
                yield index, MaskCrop(box_index=number, top=top, left=left, mask=mask, score=self.score)

    @classmethod
    def weights(cls, config: SegmenterConfig) -> Weights:
        return Weights()


@FUSION_RULES.register("largest")
class PaintLargest(LabelMapBuilder):
    """The larger mask is painted over the smaller one."""

    @classmethod
    def priority(cls, score: float, area: int) -> int:
        return area


class FixedBoxes(Detector):
    """A small box of the second tag inside a large one of the first."""

    def __init__(self) -> None:
        pass

    def detect(self, images: Any, tags: Any) -> list[Detections]:
        boxes = np.array([[0, 0, 6, 4], [1, 1, 3, 3]], np.float32)
        scores = np.array([0.5, 0.9], np.float32)
        return [
            Detections(boxes=boxes, scores=scores, class_ids=np.array([1, 2], np.int32), phrases=tuple(names))
            for names in tags
        ]


IMAGE = np.zeros((5, 8, 3), np.uint8)
LARGE = np.pad(np.ones((4, 6), np.uint8), ((0, 1), (0, 2)))
BOTH = np.where(np.pad(np.ones((2, 2), bool), ((1, 2), (1, 5))), 2, LARGE)


@pytest.mark.parametrize(("paint", "expected"), [("largest", LARGE), ("area", BOTH), ("score", BOTH)])
def test_registered_classes_label_by_their_names(paint: str, expected: np.ndarray) -> None:
    segmenter = SegmenterConfig(type="whole-box", model="none", options={"score": 0.5})
    config = LabellerConfig(classes="demo", segmenter=segmenter, fusion=FusionConfig(paint=paint))
    labels = Labeller(config, detector=FixedBoxes())
    (result,) = labels.label([IMAGE], [list(labels.classes.names[:2])])
    assert [instance.mask_score for instance in result.instances] == [0.5, 0.5]
    np.testing.assert_array_equal(result.label, expected)


def test_suppression_applies_to_the_boxes_of_any_detector() -> None:
    segmenter = SegmenterConfig(type="whole-box", model="none", options={"score": 0.5})
    detector = DetectorConfig(cross_class_nms=0.1)
    labels = Labeller(LabellerConfig(classes="demo", detector=detector, segmenter=segmenter), detector=FixedBoxes())
    (result,) = labels.label([IMAGE], [list(labels.classes.names[:2])])
    assert [instance.class_id for instance in result.instances] == [2], "their IoU is 4 of 24 pixels"


def test_settings_that_a_model_does_not_use_are_named() -> None:
    segmenter = SegmenterConfig(type="whole-box", model="none", preprocessing="torchvision", options={"score": 0.5})
    config = LabelConfig(input="in", output="out", classes="demo", segmenter=segmenter)
    assert describe_models(config, ClassSet.load("demo"))[-1] == "not used by whole-box: preprocessing"


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"segmenter.*whole-bx.*Did you mean .whole-box"):
        SegmenterConfig(type="whole-bx")
    with pytest.raises(ValueError, match=r"paint.*biggest.*detection, score, area, prob, largest"):
        FusionConfig(paint="biggest")


@pytest.mark.parametrize(
    ("paint", "expected"),
    [("detection", [0, 1, 2]), ("score", [2, 0, 1]), ("prob", [2, 0, 1]), ("area", [1, 0, 2]), ("largest", [2, 0, 1])],
)
def test_exports_paint_separate_objects_in_the_order_of_the_rule(paint: str, expected: list[int]) -> None:
    assert FUSION_RULES.get(paint).painting_order([0.5, 0.9, 0.2], [20, 30, 10]) == expected


def test_an_export_refuses_an_unknown_rule() -> None:
    label = np.zeros((1, 1), np.uint8)
    size = {"height": 1, "width": 1}
    record = Record(
        image_id="a", file_name="a.jpg", image=None, label=label, instances=(), tags=(), status="ok", **size
    )
    with pytest.raises(ValueError, match="unknown fusion rule `bogus`"):
        divide_label(record, ClassSet.load("demo"), "bogus")
