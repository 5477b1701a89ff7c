"""The result of labelling one image, for a notebook or a script."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from wsss_ray.classes import ClassSet
from wsss_ray.models.protocols import LabelMap
from wsss_ray.shards.instance import Instance
from wsss_ray.shards.label_row import LabelRow


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledImage:
    """One image with its label and instances."""

    row: LabelRow
    """As a label file holds it."""
    image: NDArray[np.uint8] | None
    """(H, W, 3) RGB; None where the file could not be decoded."""
    classes: ClassSet

    def __repr__(self) -> str:
        """Return the image's name, size, status and the number of its instances."""
        row = self.row
        size = f"{row.width} x {row.height}"
        return f"<LabelledImage {row.image_id}, {size}, {row.status}, {len(self.instances)} instances>"

    @property
    def status(self) -> str:
        """`ok`, `no_tags`, `no_detections` or `failed`."""
        return self.row.status

    @property
    def error(self) -> str | None:
        """Stage and reason of a failure."""
        return self.row.error

    @property
    def undetected_tags(self) -> tuple[str, ...]:
        """Tags for which the detector found no box."""
        return self.row.undetected_tags or ()

    @property
    def instances(self) -> tuple[Instance, ...]:
        """Boxes, scores and masks, in the detector's order."""
        return self.row.instances or ()

    @cached_property
    def label(self) -> LabelMap:
        """The (H, W) class id of each pixel.

        Raises:
            ValueError: the image failed; the text says why.
        """
        if self.row.failed:
            raise ValueError(f"image {self.row.image_id} has no label: {self.row.error}.")
        return self.row.label_map()

    def save(self, path: str | Path) -> None:
        """Write the label as PNG: class ids with the class set's palette, 16-bit grey above 254 classes.

        Raises:
            ValueError: the image failed, or the name does not end in .png.
        """
        if Path(path).suffix.lower() != ".png":
            raise ValueError(f"{path} does not end in .png: labels are PNGs, since other formats change class ids.")
        if self.row.label is None:
            raise ValueError(f"image {self.row.image_id} has no label: {self.row.error}.")
        Path(path).write_bytes(self.row.label)

    def overlay(self, *, opacity: float = 0.6, boxes: bool = True) -> Image.Image:
        """Return the image with its classes in color, and the boxes with class name and score.

        Args:
            opacity: of the colors, 0 to 1.
            boxes: whether to draw boxes.
        """
        label = self.label
        assert self.image is not None, "an image without pixels has no label"
        mixed = self.image.astype(np.float32)
        for entry in self.classes.classes:
            here = label == entry.id
            mixed[here] = (1 - opacity) * mixed[here] + opacity * np.array(entry.color, np.float32)
        picture = Image.fromarray(mixed.astype(np.uint8))
        draw = ImageDraw.Draw(picture)
        for instance in self.instances if boxes else ():
            entry = self.classes.by_id[instance.class_id]
            left, top, right, bottom = instance.box
            corners = (min(left, right), min(top, bottom), max(left, right), max(top, bottom))
            draw.rectangle(corners, outline=entry.color, width=2)
            _caption(draw, corners, f"{entry.name} {instance.score:.2f}", entry.color)
        return picture

    def _repr_png_(self) -> bytes | None:
        """Show the overlay in a notebook."""
        return None if self.row.failed else self.overlay()._repr_png_()


def _caption(
    draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], text: str, color: tuple[int, int, int]
) -> None:
    """Write text on a field of its color at the box's upper left corner, inside the picture."""
    x, y = max(box[0], 0.0), max(box[1], 0.0)
    left, top, right, bottom = draw.textbbox((x, y), text)
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill=color)
    bright = sum(color) > 3 * 128
    draw.text((x, y), text, fill=(0, 0, 0) if bright else (255, 255, 255))
