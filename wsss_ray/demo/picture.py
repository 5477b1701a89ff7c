"""Write pictures of labelled scenes: image, label and ground truth side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from wsss_ray.classes import ClassSet
from wsss_ray.demo.scenes import Split, draw_scene, split_seeds
from wsss_ray.images.decoding import decode_row
from wsss_ray.images.label_png import decode_label
from wsss_ray.shards.image_shards import read_shard_set, read_unit
from wsss_ray.shards.label_files import read_labels
from wsss_ray.storage.storage import Storage

CELL = 220
MARGIN = 8
CAPTION = 18
HEADS = ("scene", "label from the tags", "truth")
ROWS, COLUMNS = 3, 2
FIRST_SCENES = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class _Example:
    """A labelled scene."""

    image: np.ndarray
    """(H, W, 3) uint8 RGB."""
    maps: tuple[np.ndarray, np.ndarray]
    """Label and ground truth, (H, W) class ids."""
    tags: Sequence[str]


def write_first_picture(output: Path, split: Split) -> None:
    """Label a few scenes in this process, without Ray or shards, and write a PNG of them."""
    from wsss_ray.labeller import Labeller  # noqa: PLC0415 - it imports PyTorch

    scenes = [draw_scene(seed) for seed in split_seeds(split, FIRST_SCENES)]
    labeller = Labeller("demo")
    labels = labeller.label([scene.image for scene in scenes], [scene.tags for scene in scenes])
    examples = [
        _Example(image=scene.image, maps=(label.label, scene.semantic), tags=scene.tags)
        for scene, label in zip(scenes, labels, strict=True)
    ]
    _write(examples, output, labeller.classes)


def write_picture(shards: Path, labels: Path, output: Path, *, classes: ClassSet) -> None:
    """Write a PNG of six scenes of a finished run.

    The scenes are spread over the run; of each unit the one with most tags is taken.
    """
    storage, run = Storage(str(shards)), Storage(str(labels))
    units = read_shard_set(storage).units
    examples = []
    for index in np.linspace(0, len(units) - 1, ROWS * COLUMNS):
        unit = units[round(index)]
        images = read_unit(storage, unit).to_pylist()
        best = max(range(len(images)), key=lambda row: len(images[row]["tags"]))
        data = read_labels(run, unit)["label"][best].as_py()
        examples.append(
            _Example(
                image=decode_row(images[best], exif=unit.exif),
                maps=(decode_label(data), decode_label(images[best]["truth"])),
                tags=images[best]["tags"],
            )
        )
    _write(examples, output, classes)


def _write(examples: Sequence[_Example], output: Path, classes: ClassSet) -> None:
    """Write a PNG of two columns of examples."""
    palette = np.frombuffer(classes.palette(), np.uint8).reshape(256, 3)
    width = MARGIN + COLUMNS * (len(HEADS) * (CELL + MARGIN) + MARGIN)
    rows = -(-len(examples) // COLUMNS)
    picture = Image.new("RGB", (width, CAPTION + 2 * MARGIN + rows * (CELL + CAPTION + MARGIN)), "white")
    draw = ImageDraw.Draw(picture)
    for index, example in enumerate(examples):
        cells = [example.image, *(_paint(example.image, label, palette) for label in example.maps)]
        left = MARGIN + index % COLUMNS * (len(HEADS) * (CELL + MARGIN) + MARGIN)
        top = 2 * CAPTION + MARGIN + index // COLUMNS * (CELL + CAPTION + MARGIN)
        for column, (cell, head) in enumerate(zip(cells, HEADS, strict=True)):
            x = left + column * (CELL + MARGIN)
            if index < COLUMNS:
                draw.text((x, MARGIN), head, fill="black")
            small = Image.fromarray(cell)
            small.thumbnail((CELL, CELL))
            picture.paste(small, (x, top))
        draw.text((left, top - CAPTION + 4), "tags: " + ", ".join(example.tags), fill="black")
    stream = io.BytesIO()
    picture.quantize(256, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(stream.getvalue())


def _paint(picture: np.ndarray, label: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Return the picture with its label's colors over it; background is only made paler."""
    colors = palette[label].astype(np.float32)
    mixed = np.where((label > 0)[..., None], 0.25 * picture + 0.75 * colors, 0.35 * picture + 166)
    return mixed.astype(np.uint8)
