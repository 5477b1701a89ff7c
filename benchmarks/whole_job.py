"""Measure the labelling of a photo with SAM ViT-H and Grounding DINO Swin-T, random weights, against a baseline.

    python benchmarks/whole_job.py [--segmenter vit_h] [--repeats 1] [--warm 0] [--weights DIR] [--json FILE]

The baseline is the published script's work on one photo, as the packages are installed: transformers' detector in
float32, `SamPredictor.set_image` and `predict_torch`, painting, PNG; "with the figure" counts the script's 300-dpi
figure too (needs matplotlib). Ours is the job's stage, from the encoded photo to the encoded row; in float32 with the
exact preprocessing. Both segment the same eight boxes, because those of random detectors would differ. "mask IoU"
compares with the baseline's masks.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import simplejpeg
import torch
from after_decoder import draw
from measuring import (
    PHOTO,
    TUNED,
    Contender,
    add_options,
    cpu_seconds,
    machine,
    print_table,
    random_boxes,
    random_photo,
    serve,
    take_turns,
    write_json,
)
from PIL import Image
from random_weights import write_detector, write_sam
from segment_anything import SamPredictor
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from wsss_ray.classes import ClassSet
from wsss_ray.config import LabelConfig, parse
from wsss_ray.engine.meter import Meter
from wsss_ray.images.rle import decode_mask, encode_mask
from wsss_ray.labeller import Labeller
from wsss_ray.labelling.stages import LabelStage
from wsss_ray.models.detector.prompts import PromptBuilder
from wsss_ray.models.results import Detections
from wsss_ray.models.sam.loading import load_sam

TAGS = ["dog", "person", "dining table"]
BOXES = 8
PARTS = ("detect", "segment", "rest", "figure")
CONTENDERS = [
    Contender(name="baseline, as installed", way="baseline", environment={}),
    Contender(name="ours, float32", way="float32", environment=TUNED),
    Contender(name="ours, bfloat16", way="bfloat16", environment=TUNED),
]
FORMATS = {
    **{"contender": "", "seconds": ".1f", "times faster": ".2f", "with the figure": ".2f"},
    **{"detect": ".1f", "detect faster": ".2f"},
    **{"segment": ".1f", "segment faster": ".2f", "rest": ".2f", "figure": ".1f"},
    **{"mask IoU, mean": ".4f", "mask IoU, least": ".4f"},
}


def prepare(way: str, weights: Path, model: str) -> Callable[[], np.ndarray]:
    """Return the function to measure, which returns the seconds of PARTS and then the masks, flat."""
    photo = random_photo(np.random.default_rng(0))
    boxes = random_boxes(np.random.default_rng(1), BOXES)
    data = simplejpeg.encode_jpeg(photo, quality=92)
    if way == "baseline":
        return baseline(weights, model, data, boxes)
    flags = ["--input", "-", "--output", "-", "--classes", "voc", "--detector.model", str(weights / "detector")]
    flags += ["--segmenter.model", model, "--segmenter.checkpoint", str(weights / "sam" / "weights.pth")]
    backend = "pil" if way == "float32" else "torchvision"  # the exact one
    flags += ["--detector.preprocessing", backend, "--segmenter.preprocessing", backend]
    flags += ["--detector.precision", way, "--segmenter.precision", way]
    classes = ClassSet.load("voc")
    config = parse(LabelConfig, flags)
    labeller = Labeller(config, classes=classes)
    detect = labeller.detector.detect
    fixed = Detections(
        boxes=boxes,
        scores=np.linspace(0.9, 0.3, BOXES, dtype=np.float32),
        class_ids=np.arange(1, BOXES + 1, dtype=np.int32),
        phrases=("thing",) * BOXES,
    )

    def detect_and_replace(images: Sequence[np.ndarray], tags: Sequence[Sequence[str]]) -> list[Detections]:
        detect(images, tags)
        return [fixed] * len(images)

    labeller.detector.detect = detect_and_replace  # type: ignore[method-assign]
    stage = LabelStage(config, classes, "ignore", labeller=labeller)
    row = {"image_id": "photo", "image": data, "height": PHOTO[0], "width": PHOTO[1], "tags": TAGS, "error": None}

    def call() -> np.ndarray:
        meter, start = Meter(), time.perf_counter()
        labelled = stage(pa.Table.from_pylist([row]), meter).to_pylist()[0]
        whole = time.perf_counter() - start
        assert labelled.get("error") is None, labelled["error"]
        masks = [decode_mask(entry["mask"]["counts"], *PHOTO) for entry in labelled["instances"]]
        parts = [meter.seconds["detect"], meter.seconds["segment"]]
        return np.concatenate([[*parts, whole - sum(parts), 0.0], np.stack(masks).ravel()])

    return call


def baseline(weights: Path, model: str, data: bytes, boxes: np.ndarray) -> Callable[[], np.ndarray]:
    """Return the function that does the work of the published script."""
    processor = AutoProcessor.from_pretrained(weights / "detector")
    network = AutoModelForZeroShotObjectDetection.from_pretrained(weights / "detector").eval()
    classes = ClassSet.load("voc")
    prompt = PromptBuilder(classes, processor.tokenizer).build(TAGS)[0].text
    predictor = SamPredictor(load_sam(model, weights / "sam" / "weights.pth"))

    def call() -> np.ndarray:
        start = time.perf_counter()
        photo = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
        with torch.inference_mode():
            network(**processor(images=photo, text=prompt, return_tensors="pt"))
            detected = time.perf_counter()
            predictor.set_image(photo)
            prompts = predictor.transform.apply_boxes_torch(torch.from_numpy(boxes), PHOTO)
            masks = predictor.predict_torch(None, None, prompts, multimask_output=False)[0][:, 0].numpy()
        segmented = time.perf_counter()
        label = np.zeros(PHOTO, np.uint8)
        for class_id, mask in reversed(list(enumerate(masks, start=1))):  # the highest score last
            label[mask] = class_id
        image = Image.fromarray(label)
        image.putpalette(classes.palette())
        image.save(io.BytesIO(), "PNG")
        parts = [detected - start, segmented - detected, time.perf_counter() - segmented]
        written = cpu_seconds()
        if importlib.util.find_spec("matplotlib") is not None:
            draw(photo, masks)
        parts.append(cpu_seconds() - written)  # is subtracted from the whole, which is CPU time too
        assert len(encode_mask(masks[0])) > 0
        return np.concatenate([parts, masks.ravel()])

    return call


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segmenter", default="vit_h", choices=["vit_b", "vit_l", "vit_h"])
    parser.add_argument("--weights", type=Path, help="directory that keeps the random weights for the next run")
    parser.add_argument("--only-write", action="store_true", help="write the weights and end")
    add_options(parser, repeats=1)
    parser.set_defaults(warm=0)
    options = parser.parse_args()
    if options.worker:
        way, result, weights, model = options.worker
        serve(prepare(way, Path(weights), model), result)
        return
    with tempfile.TemporaryDirectory() as folder:
        weights = options.weights or Path(folder)
        if not (weights / "sam" / "weights.pth").exists():
            weights.mkdir(parents=True, exist_ok=True)
            write_detector(weights / "detector")
            write_sam(weights / "sam", options.segmenter)
        if options.only_write:
            return
        head = machine(options.threads)
        print(f"{head}\nSAM {options.segmenter} and Grounding DINO Swin-T, one photo of 640 x 480, {BOXES} boxes")
        answers = take_turns(__file__, [str(weights), options.segmenter], CONTENDERS, options)
    expected = answers[0].value[len(PARTS) :].astype(bool).reshape(BOXES, -1)
    figure = answers[0].value[len(PARTS) - 1]
    baseline_seconds = answers[0].seconds - figure
    rows = []
    for answer in answers:
        masks = answer.value[len(PARTS) :].astype(bool).reshape(BOXES, -1)
        overlap = (masks & expected).sum(1) / np.maximum((masks | expected).sum(1), 1)
        parts = dict(zip(PARTS, answer.value[: len(PARTS)].tolist(), strict=True))
        seconds = baseline_seconds if answer is answers[0] else answer.seconds
        rows.append(
            {
                "contender": answer.name,
                "seconds": seconds,
                "times faster": baseline_seconds / seconds,
                "with the figure": answers[0].seconds / seconds if figure else None,
                **parts,
                "detect faster": answers[0].value[0] / parts["detect"],
                "segment faster": answers[0].value[1] / parts["segment"],
                "mask IoU, mean": float(overlap.mean()),
                "mask IoU, least": float(overlap.min()),
            }
        )
    print_table(rows, FORMATS)
    write_json(options.json, rows, machine=head)


if __name__ == "__main__":
    main()
