"""Parts of the stages that make labels: decoding the images of a unit in pieces, and the columns of the result."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import PIL.Image
import pyarrow as pa
from numpy.typing import NDArray

from wsss_ray.engine.meter import Meter
from wsss_ray.images.decoding import decode_row
from wsss_ray.images.header import ImageError
from wsss_ray.shards.schemas import LABEL_SCHEMA

PIXELS_TYPE = pa.list_(pa.struct([("class_id", pa.int32()), ("pixels", pa.int64())]))
LABELLED_SCHEMA = pa.schema([*LABEL_SCHEMA, pa.field("pixels", PIXELS_TYPE)])
"""Rows after the last stage: a label row and how many pixels each class has in its label."""

_FEW_IDS = 12
"""Looking for so many ids one by one is faster than counting all at once."""

Image = NDArray[np.uint8]
Exif = Literal["apply", "ignore"]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image row with its decoded image, or the reason why there is none."""

    row: dict[str, Any]
    image: Image | None = None
    error: str | None = None


class PictureReader:
    """Decodes rows in pieces that hold a bounded number of pixels."""

    def __init__(self, *, exif: Exif, decoded_bytes: int, tagged_only: bool) -> None:
        """Set how images are decoded.

        Args:
            exif: the shards' rule for EXIF orientation.
            decoded_bytes: bytes of uint8 RGB that a piece may hold.
            tagged_only: decode only images with a tag.
        """
        self._exif = exif
        self._decoded_bytes = decoded_bytes
        self._tagged_only = tagged_only

    def pieces(self, rows: pa.Table, meter: Meter) -> Iterator[list[Picture]]:
        """Iterate over the rows in pieces of decoded images."""
        piece: list[dict[str, Any]] = []
        size = 0
        for row in rows.to_pylist():
            pixels = row["height"] * row["width"] * 3
            if piece and size + pixels > self._decoded_bytes:
                yield self._decode(piece, meter)
                piece, size = [], 0
            piece.append(row)
            size += pixels
        if piece:
            yield self._decode(piece, meter)

    def _decode(self, rows: list[dict[str, Any]], meter: Meter) -> list[Picture]:
        with meter("decode"):
            return [self._picture(row) for row in rows]

    def _picture(self, row: dict[str, Any]) -> Picture:
        if self._tagged_only and not row["tags"]:
            return Picture(row=row)
        try:
            return Picture(row=row, image=decode_row(row, exif=self._exif))
        except ImageError as error:
            return Picture(row=row, error=f"decode: {error}")


def pixels_per_class(label: np.ndarray, *, among: Collection[int] | None = None) -> list[dict[str, int]]:
    """Return the `pixels` of a label row: how many pixels of a (H, W) label map each id has.

    Args:
        label: the label map.
        among: all ids that occur, and perhaps others, where the caller knows them: that is faster.
    """
    counts: dict[int, int]
    if among is not None and len(among) <= _FEW_IDS:
        counts = {class_id: int(np.count_nonzero(label == class_id)) for class_id in sorted(among)}
        assert sum(counts.values()) == label.size, "there are other ids"
    elif label.dtype == np.uint8:  # Pillow counts bytes as they are; numpy makes numbers of eight bytes of them first
        counts = dict(enumerate(PIL.Image.fromarray(label).histogram()))
    else:
        counts = dict(enumerate(np.bincount(label.ravel()).tolist()))
    return [{"class_id": class_id, "pixels": pixels} for class_id, pixels in counts.items() if pixels]


def nullable(schema: pa.Schema) -> pa.Schema:
    """Return the schema for rows of which some have failed and lack columns."""
    return pa.schema([field.with_nullable(True) for field in schema])
