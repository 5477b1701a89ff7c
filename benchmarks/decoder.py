"""Measure the steps from SAM's features to label rows for many boxes: a loop over images against ours.

    python benchmarks/decoder.py [--boxes 4 30 300] [--images 8] [--repeats 3] [--json FILE]

The published prompt encoder and mask decoder follow a small image encoder. "loop": `SamPredictor.set_image` and
`predict_torch` image by image, all boxes of an image at once, masks painted in query order, one palette PNG, and RLE of
each mask. "ours": `Labeller.label_pictures`, with the same PNG and RLE. Seconds include the small encoder, which is
also measured alone.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measuring import (
    PHOTO,
    TUNED,
    Contender,
    add_options,
    machine,
    print_table,
    random_boxes,
    random_photo,
    serve,
    take_turns,
    write_json,
)
from random_weights import write_sam
from segment_anything import SamPredictor

from wsss_ray.classes import ClassSet
from wsss_ray.config import FusionConfig, LabellerConfig, SegmenterConfig
from wsss_ray.engine.meter import Meter
from wsss_ray.images.label_png import encode_label
from wsss_ray.images.rle import encode_mask
from wsss_ray.labeller import Labeller
from wsss_ray.labels.decoded_images import Picture
from wsss_ray.models.device import Compute
from wsss_ray.models.results import Detections
from wsss_ray.models.sam.encoder import ImageEncoder, resize_longest_side
from wsss_ray.models.sam.loading import load_sam
from wsss_ray.models.sam.sam import SamSegmenter

CONTENDERS = [
    Contender(name="loop, as installed", way="loop", environment={}),
    Contender(name="loop, tuned allocator", way="loop", environment=TUNED),
    Contender(name="ours", way="ours", environment=TUNED),
    Contender(name="small encoder alone", way="encoder", environment=TUNED),
]
FORMATS = {
    **{"boxes": "d", "contender": "", "seconds": ".2f", "times faster": ".2f", "without encoder": ".2f"},
    **{"peak MiB": ".0f", "other pixels": ".1e"},
}


def prepare(way: str, weights: Path, images: int, boxes: int) -> Callable[[], np.ndarray]:
    """Return the function to measure, which returns label maps (images, H, W)."""
    generator = np.random.default_rng(0)
    photos = [random_photo(generator) for _ in range(images)]
    prompts = [random_boxes(generator, boxes) for _ in range(images)]
    classes = ClassSet.load("coco")
    ids = np.array([classes.classes[index % 80].id for index in range(boxes)], np.int32)
    if way == "loop":
        predictor = SamPredictor(load_sam("tiny", weights))
        return lambda: by_loop(predictor, photos, prompts, ids, classes.palette())
    if way == "encoder":
        encoder = ImageEncoder(load_sam("tiny", weights), Compute(device=torch.device("cpu"), tier="float32"))
        return lambda: encoder.encode([resize_longest_side(photo, encoder.side) for photo in photos]).numpy()
    config = SegmenterConfig(model="tiny", device="cpu", precision="float32")
    settings = LabellerConfig(classes="coco", segmenter=config, fusion=FusionConfig(paint="detection"))
    labeller = Labeller(settings, segmenter=SamSegmenter(config, checkpoint=str(weights)))
    return lambda: by_ours(labeller, photos, prompts, ids=ids)


def by_loop(
    predictor: SamPredictor, photos: list[np.ndarray], prompts: list[np.ndarray], ids: np.ndarray, palette: bytes
) -> np.ndarray:
    """Label one image after the other, as the published script."""
    labels = []
    for photo, boxes in zip(photos, prompts, strict=True):
        predictor.set_image(photo)
        transformed = predictor.transform.apply_boxes_torch(torch.from_numpy(boxes), PHOTO)
        masks, _, _ = predictor.predict_torch(None, None, transformed, multimask_output=False)
        label = np.zeros(PHOTO, np.uint8)
        for class_id, mask in zip(ids, masks[:, 0].numpy(), strict=True):
            label[mask] = class_id
            encode_mask(mask)
        encode_label(label, palette=palette)
        labels.append(label)
    return np.stack(labels)


def by_ours(labeller: Labeller, photos: list[np.ndarray], prompts: list[np.ndarray], *, ids: np.ndarray) -> np.ndarray:
    """Label all images together, as the labelling stage."""
    pictures, found = [], []
    for photo, boxes in zip(photos, prompts, strict=True):
        row = {"image_id": "photo", "height": photo.shape[0], "width": photo.shape[1], "tags": []}
        pictures.append(Picture(row=row, image=photo))
        scores, phrases = np.ones(len(boxes), np.float32), ("thing",) * len(boxes)
        found.append(Detections(boxes=boxes, scores=scores, class_ids=ids, phrases=phrases))
    return np.stack([label.row.label_map() for label in labeller.label_pictures(pictures, found, Meter())])


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", nargs="*", type=int, default=[4, 30])
    parser.add_argument("--images", type=int, default=8)
    add_options(parser, repeats=3)
    options = parser.parse_args()
    if options.worker:
        way, result, weights, images, boxes = options.worker
        serve(prepare(way, Path(weights), int(images), int(boxes)), result)
        return
    head = machine(options.threads)
    print(f"{head}\n{options.images} images of {PHOTO[1]} x {PHOTO[0]}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        weights = write_sam(Path(folder) / "sam", "small")
        for boxes in options.boxes:
            arguments = [str(weights), str(options.images), str(boxes)]
            *answers, encoder = take_turns(__file__, arguments, CONTENDERS, options)
            rows += [
                {
                    "boxes": boxes,
                    "contender": answer.name,
                    "seconds": answer.seconds,
                    "times faster": answers[0].seconds / answer.seconds,
                    "without encoder": (answers[0].seconds - encoder.seconds) / (answer.seconds - encoder.seconds),
                    "peak MiB": answer.peak_mib,
                    "other pixels": float((answer.value != answers[0].value).mean()),
                }
                for answer in answers
            ]
    print_table(rows, FORMATS)
    write_json(options.json, rows, machine=head)


if __name__ == "__main__":
    main()
