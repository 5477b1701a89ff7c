"""The unit: one row group of an image shard, which is processed, retried and resumed as a whole."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from wsss_ray.images.header import DEFAULT_MAX_PIXELS


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One row group of one image shard."""

    shard: str
    """File name of the image shard."""
    row_group: int
    rows: int
    digest: str
    """SHA-256 (hex) over ids, bytes and tags of the row group."""
    exif: Literal["apply", "ignore"]
    """Whether readers turn the images by their EXIF orientation."""
    max_pixels: int = DEFAULT_MAX_PIXELS
    """Most pixels of an image, by the limit that the shard was made with."""

    @property
    def name(self) -> str:
        """Name of the unit, unique in the run: shard, row group and eight digits of the digest."""
        return f"{self.shard.removesuffix('.parquet')}-{self.row_group:04d}-{self.digest[:8]}"

    @property
    def label_path(self) -> str:
        """Path of the unit's label file below the run directory."""
        return f"labels/{self.name}.parquet"

    def to_json(self) -> str:
        """Return the unit as JSON, for a column of strings."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Unit:
        """Return the unit that `to_json` encoded."""
        return Unit(**json.loads(text))
