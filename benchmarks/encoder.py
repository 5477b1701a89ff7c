"""Measure SAM's image encoder: the package as installed against ours, equal random weights; seconds per image.

    python benchmarks/encoder.py [--models vit_b vit_h] [--batch 1 4] [--repeats 3] [--threads 1] [--json FILE]

"of peak" is the share of this processor's best matrix product in the same dtype. "mask IoU" compares the masks of 30
boxes, decoded from a contender's features, with those from the package's features.
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
    Answer,
    Contender,
    add_options,
    machine,
    print_table,
    product_peaks,
    random_boxes,
    random_photo,
    serve,
    take_turns,
    write_json,
)
from random_weights import write_sam
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam
from torch.utils.flop_counter import FlopCounterMode

from wsss_ray.models.device import Compute
from wsss_ray.models.fast.sam_decoder import BoxDecoder
from wsss_ray.models.sam.encoder import ImageEncoder, resize_longest_side
from wsss_ray.models.sam.loading import load_sam

CONTENDERS = [
    Contender(name="package, as installed", way="package", environment={}),
    Contender(name="package, tuned allocator", way="package", environment=TUNED),
    Contender(name="ours, float32", way="float32", environment=TUNED),
    Contender(name="ours, bfloat16", way="bfloat16", environment=TUNED),
]
BOXES = 30
FORMATS = {
    **{
        "model": "",
        "batch": "d",
        "contender": "",
        "seconds": ".2f",
        "times faster": ".2f",
        "peak MiB": ".0f",
        "GFLOP/s": ".0f",
    },
    **{"of peak": ".0%", "largest error": ".1e", "mask IoU, mean": ".4f", "mask IoU, least": ".4f"},
}


def prepare(way: str, model: str, weights: Path, batch: int) -> Callable[[], np.ndarray]:
    """Return the function to measure: it encodes a batch and returns the features of one photo, (256, 64, 64)."""
    sam = load_sam(model, weights)
    picture = resize_longest_side(random_photo(np.random.default_rng(0)), sam.image_encoder.img_size)
    if way == "package":
        pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].repeat(batch, 1, 1, 1)
        return lambda: encode_by_package(sam, pixels)
    encoder = ImageEncoder(sam, Compute(device=torch.device("cpu"), tier=way))  # type: ignore[arg-type]
    return lambda: encoder.encode([picture] * batch).numpy()[0]


def encode_by_package(sam: Sam, pixels: torch.Tensor) -> np.ndarray:
    """Return the features of the first image."""
    with torch.inference_mode():
        features: torch.Tensor = sam.image_encoder(sam.preprocess(pixels))
        return features[0].numpy()


def flops(model: str) -> float:
    """Return the GFLOP of the package's forward pass, counted without weights."""
    with torch.device("meta"):
        encoder = sam_model_registry[model]().image_encoder
        with FlopCounterMode(display=False) as counter:
            encoder(torch.zeros(1, 3, 1024, 1024))
    return counter.get_total_flops() / 1e9


def masks_of(features: np.ndarray, sam: Sam) -> np.ndarray:
    """Return masks (BOXES, 256, 256) bool by the same decoder for all features."""
    decoder = BoxDecoder(sam)
    boxes = torch.from_numpy(random_boxes(np.random.default_rng(1), BOXES)) * (1024 / PHOTO[1])
    with torch.inference_mode():
        tokens = decoder.tokens_of_images(torch.from_numpy(features)[None])
        logits, _ = decoder.decode(tokens, torch.zeros(BOXES, dtype=torch.int64), boxes)
    return (logits > 0).numpy()


def row_of(
    answer: Answer, first: Answer, *, model: str, batch: int, gflop: float, peaks: dict[str, float], sam: Sam
) -> dict:
    """Return a row of the table."""
    seconds = answer.seconds / batch
    masks, expected = masks_of(answer.value, sam), masks_of(first.value, sam)
    overlap = (masks & expected).sum((1, 2)) / np.maximum((masks | expected).sum((1, 2)), 1)
    dtype = "bfloat16" if "bfloat16" in answer.name else "float32"
    return {
        "model": model,
        "batch": batch,
        "contender": answer.name,
        "seconds": seconds,
        "times faster": first.seconds / answer.seconds,
        "peak MiB": answer.peak_mib,
        "GFLOP/s": gflop / seconds,
        "of peak": gflop / seconds / peaks[dtype],
        "largest error": float(np.abs(answer.value - first.value).max() / np.abs(first.value).max()),
        "mask IoU, mean": float(overlap.mean()),
        "mask IoU, least": float(overlap.min()),
    }


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=["vit_b"], choices=["vit_b", "vit_l", "vit_h"])
    parser.add_argument("--batch", type=int, nargs="*", default=[1], help="images at once (ours encodes singly)")
    parser.add_argument("--skip-tuned-package", action="store_true", help="leave out the tuned allocator")
    add_options(parser, repeats=3)
    options = parser.parse_args()
    if options.worker:
        way, result, model, weights, batch = options.worker
        serve(prepare(way, model, Path(weights), int(batch)), result)
        return
    head = machine(options.threads)
    print(head)
    peaks = product_peaks(options)
    rows = []
    contenders = [c for c in CONTENDERS if not (options.skip_tuned_package and c == CONTENDERS[1])]
    for model in options.models:
        gflop = flops(model)
        with tempfile.TemporaryDirectory() as folder:
            weights = write_sam(Path(folder) / "sam", model)
            sam = load_sam(model, weights)
            for batch in options.batch:
                answers = take_turns(__file__, [model, str(weights), str(batch)], contenders, options)
                common = {"model": model, "batch": batch, "gflop": gflop, "peaks": peaks, "sam": sam}
                rows += [row_of(answer, answers[0], **common) for answer in answers]
        print(f"{model}: {gflop:.0f} GFLOP an image")
    print_table(rows, FORMATS)
    write_json(options.json, rows, machine=head, peaks=peaks)


if __name__ == "__main__":
    main()
