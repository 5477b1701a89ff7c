"""Measure Grounding DINO Swin-T at full size with random weights: transformers as installed against ours.

    python benchmarks/detector.py [--repeats 2] [--threads 1] [--json FILE]

Seconds of one image of 800 x 1066 (a 640 x 480 photo) with three tags. "batch of 2" and "mixed sizes" are per image
over two photos, of one size and of two. The text row is the whole text encoder, which runs with every image: an
upper bound for the gain by a cache.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
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
    product_peaks,
    random_photo,
    serve,
    take_turns,
    write_json,
)
from random_weights import write_detector
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

from wsss_ray import Labeller
from wsss_ray.classes import ClassSet
from wsss_ray.config import DetectorConfig, LabellerConfig
from wsss_ray.models.detector.network import GroundingDino
from wsss_ray.models.detector.prompts import PromptBuilder

WIDE = (427, 640)
"""Another common size in COCO: 800 x 1199 for the network, so not in a batch with `PHOTO` (800 x 1066)."""
TAGS = ["dog", "person", "dining table"]
CONTENDERS = [
    Contender(name="transformers, as installed", way="transformers", environment={}),
    Contender(name="transformers, tuned allocator", way="transformers", environment=TUNED),
    Contender(name="ours, float32", way="float32", environment=TUNED),
    Contender(name="ours, bfloat16", way="bfloat16", environment=TUNED),
]
MORE = [
    Contender(name="ours, float32, batch of 2", way="float32-same", environment=TUNED),
    Contender(name="ours, float32, mixed sizes", way="float32-mixed", environment=TUNED),
    Contender(name="ours, text encoder alone", way="float32-text", environment=TUNED),
]
FORMATS = {
    **{"contender": "", "seconds": ".2f", "times faster": ".2f", "peak MiB": ".0f", "GFLOP/s": ".0f"},
    **{"median shift, pixels": ".1e", "90th percentile": ".1e"},
}


def prepare(way: str, directory: Path) -> Callable[[], np.ndarray]:
    """Return the function to measure, which returns the boxes of all queries of one photo, XYXY pixels."""
    photo = random_photo(np.random.default_rng(0))
    if way == "transformers":
        return by_transformers(directory, photo)
    precision, _, what = way.partition("-")
    config = DetectorConfig(model=str(directory), box_threshold=0.0, precision=precision)  # type: ignore[arg-type]
    if what == "text":
        return partial(text_alone, GroundingDino(config, ClassSet.load("voc")))
    detector = Labeller(LabellerConfig(classes="voc", detector=config)).detector
    other = random_photo(np.random.default_rng(1), PHOTO if what == "same" else WIDE)
    photos = [photo, other] if what else [photo]
    return lambda: detector.detect(photos, [TAGS] * len(photos))[0].boxes


def by_transformers(directory: Path, photo: np.ndarray) -> Callable[[], np.ndarray]:
    """Return the function that uses the library's own classes as in its documentation."""
    processor = AutoProcessor.from_pretrained(directory)
    network = AutoModelForZeroShotObjectDetection.from_pretrained(directory).eval()
    prompts = PromptBuilder(ClassSet.load("voc"), processor.tokenizer).build(TAGS)

    def call() -> np.ndarray:
        inputs = processor(images=photo, text=prompts[0].text, return_tensors="pt")
        with torch.inference_mode():
            outputs = network(**inputs)
        boxes = outputs.pred_boxes[0]
        corners = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
        return (corners * torch.tensor([PHOTO[1], PHOTO[0]] * 2)).numpy()

    return call


def text_alone(detector: GroundingDino) -> np.ndarray:
    """Run the text encoder on the tokens of a prompt."""
    with torch.inference_mode():
        ids = torch.arange(200, 220)[None]
        output: torch.Tensor = detector.network.model.text_backbone(ids).last_hidden_state
        return output.numpy()


def flops(directory: Path) -> float:
    """Return the GFLOP of one forward pass of transformers' network."""
    network = AutoModelForZeroShotObjectDetection.from_pretrained(directory).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(pixel_values=torch.zeros(1, 3, 800, 1066), input_ids=torch.tensor([[101, *range(200, 218), 102]]))
    return counter.get_total_flops() / 1e9


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="also measure batches, mixed sizes and the text encoder")
    add_options(parser, repeats=2)
    options = parser.parse_args()
    if options.worker:
        way, result, directory = options.worker
        serve(prepare(way, Path(directory)), result)
        return
    head = machine(options.threads)
    print(head)
    peaks = product_peaks(options)
    with tempfile.TemporaryDirectory() as folder:
        write_detector(Path(folder))
        gflop = flops(Path(folder))
        answers = take_turns(__file__, [folder], [*CONTENDERS, *(MORE if options.all else ())], options)
    rows = []
    for answer in answers:
        row = {"contender": answer.name, "peak MiB": answer.peak_mib}
        images = 1 + ("batch" in answer.name or "mixed" in answer.name)
        row["seconds"] = answer.seconds / images
        if "text" not in answer.name:
            shifts = np.abs(answer.value - answers[0].value).max(1)
            row |= {
                "times faster": answers[0].seconds / row["seconds"],
                "GFLOP/s": None if "mixed" in answer.name else gflop / row["seconds"],
                "median shift, pixels": float(np.median(shifts)),
                "90th percentile": float(np.quantile(shifts, 0.9)),
            }
        rows.append(row)
    print(f"{gflop:.0f} GFLOP an image as transformers computes it")
    print_table(rows, FORMATS)
    write_json(options.json, rows, machine=head, peaks=peaks, gflop=gflop)


if __name__ == "__main__":
    main()
