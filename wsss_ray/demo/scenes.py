"""Draw the demo's scenes: pictures drawn from a seed, with exact masks, boxes and tags.

    python -m wsss_ray.demo.scenes --split test --count 300 --output DIR

writes them as a folder of images with tags and ground truth, which `wsss-ray shard` reads. A scene is a function of
its seed alone. Each split has a fixed range of seeds: models train on `train`, settings are tuned on `validation`,
published figures are measured on `test`.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image

from wsss_ray.classes import voc_color
from wsss_ray.demo.scene_canvas import SceneCanvas
from wsss_ray.demo.shapes import DISHES

Split = Literal["train", "validation", "test"]
SEEDS: dict[Split, range] = {
    "train": range(0, 1_000_000),
    "validation": range(1_000_000, 1_100_000),
    "test": range(1_100_000, 1_200_000),
}
CLASSES = (
    "potted plant",
    "traffic light",
    "dining table",
    "sail boat",
    "hot air balloon",
    "stop sign",
    "umbrella",
    "cat",
    "mushroom",
)
"""Classes by name; the id of a class is its index here plus one, 0 is background."""
PHRASES = CLASSES + DISHES
"""Phrases that the detector is trained on: the classes and the dishes on tables."""

_CLASS_WEIGHTS = np.array([0.1, 0.1, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
_ASPECTS = [(4, 3), (3, 4), (3, 2), (2, 3), (1, 1)]
_SHORTEST, _LONGEST = 160, 320


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnObject:
    """A drawn object: its phrase, its visible pixels (H, W) bool, and their box XYXY in pixels, exclusive end."""

    phrase: str
    mask: np.ndarray
    box: tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A picture (H, W, 3) uint8 RGB and its objects. A table's mask leaves out the dishes on it."""

    seed: int
    image: np.ndarray
    objects: tuple[DrawnObject, ...]

    @property
    def tags(self) -> tuple[str, ...]:
        """Return the classes that are present, in the order of CLASSES; dishes are part of their table's class."""
        present = {drawn.phrase for drawn in self.objects}
        return tuple(name for name in CLASSES if name in present)

    @property
    def semantic(self) -> np.ndarray:
        """Return the ground truth (H, W) uint8 of class ids; the dishes on a table count as dining table."""
        truth = np.zeros(self.image.shape[:2], np.uint8)
        for drawn in self.objects:
            truth[drawn.mask] = class_id(drawn.phrase)
        return truth


def class_id(phrase: str) -> int:
    """Return the id of a phrase's class in the ground truth; a dish has the id of dining table."""
    return CLASSES.index("dining table" if phrase in DISHES else phrase) + 1


def split_seeds(split: Split, count: int, *, first: int = 0) -> range:
    """Return `count` seeds of a split, starting at its seed number `first`.

    Raises:
        ValueError: the split is unknown or has fewer seeds.
    """
    if split not in SEEDS:
        raise ValueError(f"unknown split {split!r}: one of {', '.join(get_args(Split))}")
    if first < 0 or not 0 <= count <= len(SEEDS[split]) - first:
        raise ValueError(f"split {split!r} has {len(SEEDS[split])} scenes, not {first + count}")
    return SEEDS[split][first : first + count]


def draw_scene(seed: int) -> Scene:
    """Draw the scene of a seed: 1 to 4 objects of CLASSES, and the dishes on their tables."""
    random = np.random.default_rng(seed)
    canvas = SceneCanvas(random, *_draw_size(random))
    count, tries = int(random.choice([1, 2, 3, 4], p=[0.25, 0.3, 0.25, 0.2])), 0
    while canvas.objects < count and (tries < 25 or canvas.objects == 0):
        tries += 1
        phrase = CLASSES[int(random.choice(len(CLASSES), p=_CLASS_WEIGHTS))]
        if phrase == "dining table":
            canvas.paint_table()
        else:
            canvas.paint_object(phrase)
    objects = tuple(
        DrawnObject(phrase=phrase, mask=mask, box=tight_box(mask))
        for phrase, mask in zip(canvas.phrases, canvas.masks, strict=True)
    )
    return Scene(seed=seed, image=canvas.finish(), objects=objects)


def _draw_size(random: np.random.Generator) -> tuple[int, int]:
    """Return a height and width of a few exact aspect ratios, as photos have, so that resized images share sizes."""
    across, down = _ASPECTS[int(random.choice(len(_ASPECTS), p=[0.35, 0.2, 0.2, 0.1, 0.15]))]
    smallest = -(-_SHORTEST // min(across, down))
    longest = _LONGEST * 4 // 5 if across == down else _LONGEST
    unit = int(random.integers(smallest, longest // max(across, down) + 1))
    return down * unit, across * unit


def tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return the box XYXY, exclusive end, of the true pixels of a mask (H, W) that has some."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def write_folder(directory: Path, split: Split, count: int, *, first: int = 0) -> None:
    """Write `count` scenes of a split, starting at its scene number `first`, as images, tags and ground truth.

    `images/<split>-<seed>.jpg`; `tags.jsonl` with one object per image, its `file` below `images/` and its
    `tags`; `truth/<split>-<seed>.png`, the semantic ground truth as a palette PNG. Existing files are replaced.
    """
    images, truths = directory / "images", directory / "truth"
    for folder in (images, truths):
        folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for seed in split_seeds(split, count, first=first):
        scene, name = draw_scene(seed), f"{split}-{seed:07d}"
        Image.fromarray(scene.image).save(images / f"{name}.jpg", quality=95, subsampling=0)
        truth = Image.fromarray(scene.semantic)
        truth.putpalette(bytes(channel for index in range(256) for channel in voc_color(index)))
        truth.save(truths / f"{name}.png")
        lines.append(json.dumps({"file": f"{name}.jpg", "tags": scene.tags}) + "\n")
    (directory / "tags.jsonl").write_text("".join(lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=get_args(Split), required=True)
    parser.add_argument("--count", type=int, required=True, help="scenes to write")
    parser.add_argument("--first", type=int, default=0, help="number of the first scene within the split")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    write_folder(options.output, options.split, options.count, first=options.first)
    print(f"{options.count} scenes in {options.output}: images/, tags.jsonl, truth/")


if __name__ == "__main__":
    main()
