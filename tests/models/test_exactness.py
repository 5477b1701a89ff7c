"""Labels and boxes of the published settings on real photos equal those of an independent implementation.

Settings come from the two `*-paper.yaml` files. The networks are small and random (`random_models`). `reference` is the
other implementation, which labels one photo at a time with the same weights. Preconditions check that the photos are
hard enough to show a mistake, and the last tests check that deliberate mistakes are detected.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import random_models
import reference
from fusing import fuse
from safetensors.torch import load_file
from transformers import AutoModelForZeroShotObjectDetection, AutoTokenizer

from wsss_ray.classes import ClassSet
from wsss_ray.config import LabelConfig, parse
from wsss_ray.images.decoding import decode_image
from wsss_ray.models.detector.network import GroundingDino
from wsss_ray.models.registries import FUSION_RULES
from wsss_ray.models.results import Detections, MaskCrop
from wsss_ray.models.sam.boxes import SamBoxes
from wsss_ray.models.sam.tiny import build_tiny_sam

VOC_PHOTOS = [
    *("2007_000392", "2007_001185", "2007_001763", "2007_007417", "2008_006825", "2007_003778"),
    *("2007_000836", "2010_004363", "2011_000108", "2010_005166", "2007_003788", "2010_001692"),
]
COCO_PHOTOS = [
    *("000000000724", "000000000872", "000000001490", "000000001503", "000000002592", "000000003501"),
    *("000000006040", "000000007386", "000000003845", "000000004495", "000000001353", "000000007281"),
]
PIXELS = 0.999
"""Share of pixels that must agree, of all pixels and of painted pixels."""
BOXES = 1e-4
"""Largest difference of a box's side, relative to the photo."""


@dataclasses.dataclass(kw_only=True)
class Case:
    """One paper configuration with small networks, its photos, and the results of the reference."""

    config: LabelConfig
    photos: list[Path]
    tags: list[list[str]]
    references: list[reference.Reference]


@dataclasses.dataclass(kw_only=True)
class Labelled:
    """The package's results for one photo."""

    detections: Detections
    crops: list[MaskCrop]
    label: np.ndarray


def voc_case(data: Path) -> tuple[list[Path], list[list[str]], list[dict[str, int]]]:
    tags = json.loads((data / "voc/image_tags.json").read_text())
    photos = [data / f"voc/VOCdevkit/VOC2012/JPEGImages/{name}.jpg" for name in VOC_PHOTOS]
    return photos, [tags[name] for name in VOC_PHOTOS], [reference.voc_phrases(tags[name]) for name in VOC_PHOTOS]


def coco_case(data: Path) -> tuple[list[Path], list[list[str]], list[dict[str, int]]]:
    categories = json.loads((data / "coco/annotations/instances_val2017.json").read_text())["categories"]
    names = [category["name"] for category in sorted(categories, key=lambda category: category["id"])]
    all_tags = json.loads((data / "coco/annotations/image_tags_val2017.json").read_text())
    tags = [all_tags[f"{name}.jpg"] for name in COCO_PHOTOS]
    photos = [data / f"coco/images/val2017/{name}.jpg" for name in COCO_PHOTOS]
    return photos, tags, [{tag: names.index(tag) + 1 for tag in photo_tags} for photo_tags in tags]


@pytest.fixture(scope="module", params=["voc", "coco"])
def case(
    request: pytest.FixtureRequest, shared: Path, detectors: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Case:
    """Return the case of VOC with Grounding DINO, as published, and of COCO with MM Grounding DINO."""
    detector = detectors["grounding-dino" if request.param == "voc" else "mm-grounding-dino"]
    sam_directory = random_models.write_sam(tmp_path_factory.mktemp("sam"), seed=0)
    photos, tags, phrases = (voc_case if request.param == "voc" else coco_case)(shared / "data")
    sam = build_tiny_sam(random_models.SAM_CONFIG).eval()
    sam.load_state_dict(load_file(sam_directory / "model.safetensors"))
    settings = {
        "separator": "." if request.param == "voc" else " . ",
        "network": AutoModelForZeroShotObjectDetection.from_pretrained(detector),
        "tokenizer": AutoTokenizer.from_pretrained(detector),
        "edges": random_models.EDGES,
        "box_threshold": 0.3,
    }
    references = [
        reference.label_photo(photo, photo_phrases, sam=sam, **settings)
        for photo, photo_phrases in zip(photos, phrases, strict=True)
    ]
    config = parse(LabelConfig, ["--config", f"{request.param}-paper", "--input", "shards", "--output", "run"])
    config = dataclasses.replace(
        config,
        detector=dataclasses.replace(config.detector, model=str(detector), device="cpu"),
        segmenter=dataclasses.replace(
            config.segmenter, model="tiny", checkpoint=str(sam_directory), sha256=None, device="cpu"
        ),
    )
    return Case(config=config, photos=photos, tags=tags, references=references)


def detect(case: Case, **changes: object) -> tuple[list[np.ndarray], list[Detections]]:
    """Return the photos and the package's boxes, with changes of the detector's settings."""
    images = [decode_image(photo.read_bytes(), exif="ignore") for photo in case.photos]
    detector = GroundingDino(dataclasses.replace(case.config.detector, **changes), class_set_of(case))
    return images, detector.detect(images, case.tags)


def class_set_of(case: Case) -> ClassSet:
    return ClassSet.load(case.config.classes, assist_words=case.config.assist_words)


def label(case: Case, *, detector: dict[str, object], segmenter: dict[str, object]) -> list[Labelled]:
    """Return the package's labels of the photos of a case, with changes of the settings."""
    images, found = detect(case, **detector)
    masks = SamBoxes(dataclasses.replace(case.config.segmenter, **segmenter))
    crops: list[list[MaskCrop]] = [[] for _ in images]
    for index, crop in masks.masks(masks.prepare(images, [detections.boxes for detections in found])):
        crops[index].append(crop)
    class_set = class_set_of(case)
    return [
        Labelled(
            detections=detections,
            crops=image_crops,
            label=fuse(
                detections,
                image_crops,
                *image.shape[:2],
                paint=case.config.fusion.paint,
                background_id=class_set.background_id,
                dtype=class_set.label_dtype,
            ),
        )
        for image, detections, image_crops in zip(images, found, crops, strict=True)
    ]


def agreements(labels: list[np.ndarray], references: list[reference.Reference]) -> np.ndarray:
    """Return (photos, 2) shares of equal pixels: of all pixels, and of those that are painted on either side."""
    shares = []
    for ours, theirs in zip(labels, references, strict=True):
        equal = ours == theirs.label
        shares.append((equal.mean(), equal[(ours > 0) | (theirs.label > 0)].mean()))
    return np.array(shares)


def assert_boxes_agree(found: list[Detections], references: list[reference.Reference]) -> None:
    """Assert that every photo has the reference's boxes and classes, in its order."""
    for ours, theirs in zip(found, references, strict=True):
        assert ours.class_ids.tolist() == theirs.class_ids
        height, width = theirs.label.shape
        relative = ours.boxes / np.array([width, height, width, height], np.float32)
        np.testing.assert_allclose(relative, theirs.boxes, rtol=0, atol=BOXES)
        np.testing.assert_allclose(ours.scores, theirs.scores, rtol=0, atol=BOXES)


def assert_labels_agree(labels: list[np.ndarray], references: list[reference.Reference]) -> None:
    """Assert that enough pixels of every photo agree, of all and of painted pixels."""
    assert (agreements(labels, references) >= PIXELS).all()


def assert_labels_disagree(labels: list[np.ndarray], references: list[reference.Reference]) -> None:
    """Assert that both shares are too low, in the mean and for most photos, so that `assert_labels_agree` fails."""
    shares = agreements(labels, references)
    assert (shares.mean(0) < PIXELS).all()
    assert ((shares < PIXELS).mean(0) > 0.5).all()
    with pytest.raises(AssertionError):
        assert_labels_agree(labels, references)


def test_the_photos_are_hard_enough(case: Case) -> None:
    """Check the preconditions: without them agreement would prove little."""
    assert len(case.photos) >= 12
    assert len({theirs.label.shape for theirs in case.references}) >= 8
    sizes = [theirs.network_size for theirs in case.references]
    assert len(set(sizes)) < len(sizes), "no two photos run together"
    assert sum(max(size) >= random_models.EDGES[1] - 1 for size in sizes) >= 3, "the cap on the longer side is idle"
    painted = [set(np.unique(theirs.label)) - {0} for theirs in case.references]
    assert all(3 <= len(theirs.boxes) <= 100 for theirs in case.references)
    assert all((theirs.masks.sum(0) >= 2).mean() > 0.1 for theirs in case.references), "masks do not overlap"
    assert all(0.05 < (theirs.label > 0).mean() < 0.95 for theirs in case.references)
    assert sum(len(classes) >= 2 for classes in painted) >= 0.75 * len(painted)


@pytest.fixture(scope="module")
def labelled(case: Case) -> list[Labelled]:
    """Return the case's labels, in the batches of its settings."""
    return label(case, detector={}, segmenter={})


def test_labels_and_boxes_equal_the_reference(case: Case, labelled: list[Labelled]) -> None:
    assert_boxes_agree([ours.detections for ours in labelled], case.references)
    assert_labels_agree([ours.label for ours in labelled], case.references)


@pytest.mark.parametrize(("images", "encoded", "boxes"), [(1, 1, 64), (3, 5, 7)])
def test_whatever_the_batches_and_the_order(case: Case, images: int, encoded: int, boxes: int) -> None:
    """Boxes and labels do not depend on batches or on the order of photos and tags."""
    turned = Case(
        config=case.config,
        photos=case.photos[::-1],
        tags=[tags[::-1] for tags in case.tags[::-1]],
        references=case.references[::-1],
    )
    segmenter = {"batch_size": encoded, "boxes_per_chunk": boxes}
    labelled = label(turned, detector={"batch_size": images}, segmenter=segmenter)
    assert_boxes_agree([ours.detections for ours in labelled], turned.references)
    assert_labels_agree([ours.label for ours in labelled], turned.references)


@pytest.mark.parametrize("threshold", [0.25, 0.35])
def test_another_threshold_is_detected(case: Case, threshold: float) -> None:
    labelled = label(case, detector={"box_threshold": threshold}, segmenter={})
    with pytest.raises(AssertionError):
        assert_boxes_agree([ours.detections for ours in labelled], case.references)
    assert_labels_disagree([ours.label for ours in labelled], case.references)


def test_reversed_painting_is_detected(case: Case, labelled: list[Labelled]) -> None:
    class_set = class_set_of(case)
    labels = []
    for ours in labelled:
        label_map = FUSION_RULES.get(case.config.fusion.paint)(
            *ours.label.shape, background_id=0, dtype=class_set.label_dtype
        )
        for crop in ours.crops:
            class_id = int(ours.detections.class_ids[crop.box_index])
            label_map.add(crop, class_id=class_id, score=0.5, order=len(ours.crops) - 1 - crop.box_index)
        labels.append(label_map.label)
    assert_labels_disagree(labels, case.references)


@pytest.mark.parametrize("change", [{"mode": "parent"}, {"resize": "processor"}])
def test_other_settings_are_detected(case: Case, change: dict[str, str]) -> None:
    _, found = detect(case, **change)
    with pytest.raises(AssertionError):
        assert_boxes_agree(found, case.references)
