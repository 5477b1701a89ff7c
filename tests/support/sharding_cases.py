"""Folders to shard, and the rows of what was made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from wsss_ray.config import ShardConfig
from wsss_ray.shards.image_shards import read_shard_set, read_unit
from wsss_ray.storage.storage import Storage


def all_rows(output: str | Path, config: ShardConfig | None = None) -> list[dict[str, Any]]:
    storage = Storage(str(output), config.storage if config else None)
    return [row for unit in read_shard_set(storage).units for row in read_unit(storage, unit).to_pylist()]


def rejected_rows(output: Path) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = pq.read_table(output / "rejected.parquet").to_pylist()
    return rows


def write_photos(root: Path, count: int, *, broken: tuple[int, ...] = ()) -> Path:
    """Small random photos; the broken ones are text."""
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        path = root / f"{number:03d}.png"
        if number in broken:
            path.write_text("<html>404</html>")
        else:
            Image.fromarray(rng.integers(0, 256, (100, 100, 3), dtype=np.uint8)).save(path)
    return root


def folder_config(root: Path, output: Path | str, **options: Any) -> ShardConfig:
    return ShardConfig(**{"input": str(root), "output": str(output), "tags_for_all": ("dog",), **options})
