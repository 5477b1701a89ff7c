"""Measure the demo's models, part by part, on drawn scenes:

    python -m wsss_ray.demo.components --split validation --count 200

prints JSON: the segmenter from exact boxes, the detector with true tags, both in a chain, and the gain from the
assist words of the table class. The models run in a `Labeller`, as in the labelling job, but without Ray.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torchvision.ops import box_iou

from wsss_ray.config import DetectorConfig, FusionConfig, SegmenterConfig
from wsss_ray.demo.scenes import CLASSES, Scene, Split, class_id, draw_scene, split_seeds
from wsss_ray.engine.meter import Meter
from wsss_ray.labeller import Labeller
from wsss_ray.labels.decoded_images import Picture
from wsss_ray.labels.scores import confusion_counts, headline, score
from wsss_ray.models.results import Detections

MATCH_IOU = 0.5


def detect(scenes: Sequence[Scene], labeller: Labeller) -> list[Detections]:
    """Return the detections in all scenes from their true tags."""
    return labeller.detect(_pictures(scenes), Meter())


def measure_segmenter(scenes: Sequence[Scene], *, checkpoint: str | None = None) -> dict[str, float]:
    """Return the mIoU over classes and background from the exact boxes of all objects, and each class's IoU.

    Smaller masks are painted over larger ones. `checkpoint`: a model.safetensors; the shipped one by default.
    """
    segmenter = SegmenterConfig(model="tiny", checkpoint=checkpoint)
    labeller = Labeller.from_config("demo", segmenter=segmenter, fusion=FusionConfig(paint="area"))
    return measure_chain(scenes, [_exact_detections(scene) for scene in scenes], labeller)


def measure_detector(scenes: Sequence[Scene], found: Sequence[Detections]) -> dict[str, float]:
    """Return the recall of objects by boxes of the right class at IoU 0.5 or more, of all classes and of each."""
    hits: dict[str, list[bool]] = {name: [] for name in CLASSES}
    for scene, detections in zip(scenes, found, strict=True):
        objects = [drawn for drawn in scene.objects if drawn.phrase in CLASSES]
        truth = torch.tensor([drawn.box for drawn in objects], dtype=torch.float32)
        right = detections.class_ids[:, None] == np.array([class_id(drawn.phrase) for drawn in objects])
        overlap = box_iou(torch.from_numpy(detections.boxes), truth).numpy() * right
        taken = np.zeros(len(objects), dtype=bool)
        for row in overlap[np.argsort(-detections.scores, kind="stable")]:
            free = np.where(taken, 0.0, row)
            if free.max() >= MATCH_IOU:
                taken[free.argmax()] = True
        for drawn, hit in zip(objects, taken.tolist(), strict=True):
            hits[drawn.phrase].append(hit)
    every = [hit for values in hits.values() for hit in values]
    return {
        "recall": float(np.mean(every)),
        **{name: float(np.mean(values)) for name, values in hits.items() if values},
    }


def measure_chain(scenes: Sequence[Scene], found: Sequence[Detections], labeller: Labeller) -> dict[str, float]:
    """Return the mIoU over classes and background of the label maps made from detections, and each class's IoU."""
    names = ("background", *CLASSES)
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    labels = labeller.label_pictures(_pictures(scenes), found, Meter())
    for scene, label in zip(scenes, labels, strict=True):
        counts += headline(confusion_counts(scene.semantic, label.row.label_map(), len(names)))
    scores = score(counts)
    return {"miou": float(scores.miou), **dict(zip(names, scores.iou.tolist(), strict=True))}


def _pictures(scenes: Sequence[Scene]) -> list[Picture]:
    """Return the scenes as the labelling stage gets them: decoded images with their tags."""
    return [
        Picture(
            row={
                "image_id": str(scene.seed),
                "height": scene.image.shape[0],
                "width": scene.image.shape[1],
                "tags": list(scene.tags),
            },
            image=scene.image,
        )
        for scene in scenes
    ]


def _exact_detections(scene: Scene) -> Detections:
    """Return the objects of a scene as detections."""
    return Detections(
        boxes=np.array([drawn.box for drawn in scene.objects], np.float32),
        scores=np.ones(len(scene.objects), np.float32),
        class_ids=np.array([class_id(drawn.phrase) for drawn in scene.objects], np.int32),
        phrases=tuple(drawn.phrase for drawn in scene.objects),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=get_args(Split), default="validation")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--detector", default="demo", help="a directory; the shipped one by default")
    parser.add_argument("--segmenter", type=Path, help="a model.safetensors; the shipped one by default")
    parser.add_argument("--threshold", type=float, default=DetectorConfig().box_threshold)
    options = parser.parse_args()
    checkpoint = None if options.segmenter is None else str(options.segmenter)
    detector = DetectorConfig(model=options.detector, box_threshold=options.threshold)
    segmenter = SegmenterConfig(model="tiny", checkpoint=checkpoint)
    scenes = [draw_scene(seed) for seed in split_seeds(options.split, options.count)]
    with_words, bare = (
        Labeller.from_config("demo", detector=detector, segmenter=segmenter, assist_words=words)
        for words in (True, False)
    )
    found = detect(scenes, with_words)
    chain = measure_chain(scenes, found, with_words)
    chain_without = measure_chain(scenes, detect(scenes, bare), bare)
    figures = {
        "segmenter_from_exact_boxes": measure_segmenter(scenes, checkpoint=checkpoint),
        "detector": measure_detector(scenes, found),
        "chain": chain,
        "chain_without_assist_words": chain_without,
        "dining_table_gain": chain["dining table"] - chain_without["dining table"],
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
