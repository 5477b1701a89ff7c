"""Write a picture of labelled scenes: image, label and ground truth side by side."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from wsss_ray.classes import ClassSet
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


def write_picture(shards: Path, labels: Path, output: Path, *, classes: ClassSet) -> None:
    """Write a PNG of six scenes of a finished run, each beside its label and its truth.

    The scenes are spread over the run; those with most tags in each stretch are taken.
    """
    palette = np.frombuffer(classes.palette(), np.uint8).reshape(256, 3)
    storage = Storage(str(shards))
    units = read_shard_set(storage).units
    chosen = [units[round(index)] for index in np.linspace(0, len(units) - 1, ROWS * COLUMNS)]
    width = MARGIN + COLUMNS * (len(HEADS) * (CELL + MARGIN) + MARGIN)
    sheet = Image.new("RGB", (width, CAPTION + 2 * MARGIN + ROWS * (CELL + CAPTION + MARGIN)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, unit in enumerate(chosen):
        images = read_unit(storage, unit).to_pylist()
        found = read_labels(Storage(str(labels)), unit).to_pylist()
        best = max(range(len(images)), key=lambda row: len(images[row]["tags"]))
        picture = decode_row(images[best], exif=unit.exif)
        maps = (found[best]["label"], images[best]["truth"])
        cells = [picture, *(_paint(picture, decode_label(data), palette) for data in maps)]
        left = MARGIN + index % COLUMNS * (len(HEADS) * (CELL + MARGIN) + MARGIN)
        top = 2 * CAPTION + MARGIN + index // COLUMNS * (CELL + CAPTION + MARGIN)
        for column, (cell, head) in enumerate(zip(cells, HEADS, strict=True)):
            x = left + column * (CELL + MARGIN)
            if index < COLUMNS:
                draw.text((x, MARGIN), head, fill="black")
            small = Image.fromarray(cell)
            small.thumbnail((CELL, CELL))
            sheet.paste(small, (x, top))
        draw.text((left, top - CAPTION + 4), "tags: " + ", ".join(images[best]["tags"]), fill="black")
    stream = io.BytesIO()
    sheet.quantize(256, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
    output.write_bytes(stream.getvalue())


def _paint(picture: np.ndarray, label: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Return the picture with its label's colors over it; background is only made paler."""
    colors = palette[label].astype(np.float32)
    mixed = np.where((label > 0)[..., None], 0.25 * picture + 0.75 * colors, 0.35 * picture + 166)
    return mixed.astype(np.uint8)
