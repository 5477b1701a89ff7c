"""Measure the steps from SAM's low-resolution logits to stored labels of one image: original size, joining, RLE, PNG.

    python benchmarks/after_decoder.py [--masks 4 30 300] [--repeats 9] [--json FILE]

Milliseconds of CPU time, one thread. "published": `Sam.postprocess_masks` on all masks at once, painting in query
order, RLE of full-size masks, PNG by Pillow at its default level. "with the figure": the same and a figure of 300 dpi
with the masks drawn on it, which the published script saves for every image (needs matplotlib).
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import statistics
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from measuring import PHOTO, add_options, cpu_seconds, machine, print_table, random_photo, write_json
from PIL import Image
from segment_anything import sam_model_registry

from wsss_ray.classes import ClassSet
from wsss_ray.images.rle import encode_mask
from wsss_ray.labelling.fusing import FusedLabel, LabelRowBuilder
from wsss_ray.labels.decoded_images import Picture
from wsss_ray.models.device import Compute
from wsss_ray.models.registries import FUSION_RULES
from wsss_ray.models.results import Detections
from wsss_ray.models.sam.masks import OriginalSize

RESIZED = (768, 1024)
FORMATS = {
    **{"masks": "d", "contender": "", "original size": ".1f", "join": ".1f", "RLE": ".1f", "PNG": ".1f"},
    **{"figure": ".0f", "all": ".1f", "times faster": ".1f", "other pixels": ".1e"},
}


class Stopwatch:
    """Measure CPU milliseconds by part."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}

    def __call__(self, part: str, work: Callable[[], object]) -> object:
        """Measure one part; return its result."""
        start = cpu_seconds()
        result = work()
        self.parts[part] = self.parts.get(part, 0.0) + 1000 * (cpu_seconds() - start)
        return result


def blobs(count: int) -> torch.Tensor:
    """Return logits (count, 256, 256): an ellipse with a rough edge in each, outside of the padding."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:256, :256]
    logits = []
    for _ in range(count):
        center, radii = generator.random(2) * (192, 256), 4 + generator.random(2) * 50
        distance = ((rows - center[0]) / radii[0]) ** 2 + ((columns - center[1]) / radii[1]) ** 2
        logits.append(4 * (1 - distance) + generator.normal(0, 0.5, rows.shape))
    return torch.from_numpy(np.stack(logits).astype(np.float32))


def published(logits: torch.Tensor, ids: np.ndarray, palette: bytes, photo: np.ndarray, *, figure: bool) -> tuple:
    """Run the published steps; return the label and the milliseconds."""
    with torch.device("meta"):
        sam = sam_model_registry["vit_b"]()
    watch = Stopwatch()
    masks = watch(
        "original size", lambda: np.asarray(sam.postprocess_masks(logits[:, None], RESIZED, PHOTO) > sam.mask_threshold)
    )
    assert isinstance(masks, np.ndarray)
    label = np.zeros(PHOTO, np.uint8)

    def paint() -> None:
        for class_id, mask in zip(ids, masks[:, 0], strict=True):
            label[mask] = class_id

    watch("join", paint)
    watch("RLE", lambda: [encode_mask(mask) for mask in masks[:, 0]])

    def write() -> None:
        image = Image.fromarray(label)
        image.putpalette(palette)
        image.save(io.BytesIO(), "PNG")

    watch("PNG", write)
    if figure:
        watch("figure", lambda: draw(photo, masks[:, 0]))
    return label, watch.parts


def draw(photo: np.ndarray, masks: np.ndarray) -> None:
    """Draw masks as the published script does: 10 x 10 inches, each mask a colored RGBA picture over the photo."""
    import matplotlib as mpl  # type: ignore[import-not-found] # noqa: PLC0415 - only for this row

    mpl.use("Agg")
    from matplotlib import pyplot  # type: ignore[import-not-found] # noqa: PLC0415

    figure = pyplot.figure(figsize=(10, 10))
    pyplot.imshow(photo)
    for mask in masks:
        pyplot.gca().imshow(mask[..., None] * np.array([30 / 255, 144 / 255, 255 / 255, 0.6]))
    pyplot.axis("off")
    figure.savefig(io.BytesIO(), format="jpg", bbox_inches="tight", dpi=300, pad_inches=0.0)
    pyplot.close(figure)


def ours(logits: torch.Tensor, ids: np.ndarray, classes: ClassSet, photo: np.ndarray) -> tuple:
    """Run our steps; return the label and the milliseconds. Joining and RLE are one step per mask."""
    watch = Stopwatch()
    original_size = OriginalSize(
        low_side=256,
        network_side=1024,
        resized=RESIZED,
        original=PHOTO,
        compute=Compute(device=torch.device("cpu"), tier="float32"),
    )
    count = len(logits)
    boxes = np.zeros((count, 4), np.float32)
    detections = Detections(boxes=boxes, scores=np.ones(count, np.float32), class_ids=ids, phrases=("thing",) * count)
    row = {"image_id": "photo", "height": PHOTO[0], "width": PHOTO[1], "tags": []}
    builder = LabelRowBuilder(Picture(row=row, image=photo), detections, classes, FUSION_RULES.get("detection"))
    masks = partial(original_size.crops_of, boxes=range(count), scores=[1.0] * count, probabilities=False)
    crops = watch("original size", lambda: list(masks(logits)))
    assert isinstance(crops, list)
    watch("join", lambda: [builder.add(crop) for crop in crops])
    result = watch("PNG", lambda: builder.finish(classes.palette(), {}))
    assert isinstance(result, FusedLabel)
    return result.row.label_map(), watch.parts


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", nargs="*", type=int, default=[4, 30, 300])
    add_options(parser, repeats=9)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    head = machine(options.threads)
    has_figure = importlib.util.find_spec("matplotlib") is not None
    print(f"{head}\nmilliseconds an image of {PHOTO[1]} x {PHOTO[0]}; RLE of ours is part of its join")
    classes = ClassSet.load("coco")
    photo = random_photo(np.random.default_rng(0))
    rows = []
    for count in options.masks:
        ids = np.array([classes.classes[index % 80].id for index in range(count)], np.int32)
        logits = blobs(count)
        calls: dict[str, Callable[[], tuple]] = {
            "published": lambda: published(logits, ids, classes.palette(), photo, figure=False),  # noqa: B023
            "ours": lambda: ours(logits, ids, classes, photo),  # noqa: B023
        }
        runs: dict[str, list[tuple]] = {name: [] for name in calls}
        for _ in range(options.warm + options.repeats):
            for name, call in calls.items():
                runs[name].append(call())
        if has_figure:
            runs["published, with the figure"] = [published(logits, ids, classes.palette(), photo, figure=True)]
        expected = runs["published"][0][0]
        counted = {name: turns[-options.repeats :] for name, turns in runs.items()}
        whole = {name: statistics.median(sum(turn[1].values()) for turn in turns) for name, turns in counted.items()}
        for name, turns in counted.items():
            parts = {part: statistics.median(turn[1][part] for turn in turns) for part in turns[0][1]}
            row = {"masks": count, "contender": name, **parts, "all": whole[name]}
            row["times faster"] = whole["published"] / whole[name]
            row["other pixels"] = float((turns[0][0] != expected).mean())
            rows.append(row)
    print_table(rows, FORMATS)
    if not has_figure:
        print("matplotlib is not installed: the row with the published script's figure is left out")
    write_json(options.json, rows, machine=head)


if __name__ == "__main__":
    main()
