"""Training scenes, drawn once into Parquet files and read at random by both training scripts."""

import io
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from wsss_ray.demo.scenes import PHRASES, Split, draw_scene, split_seeds

_SCENES_PER_FILE = 500
_SCHEMA = pa.schema(
    {
        "image": pa.binary(),
        "things": pa.binary(),
        "phrases": pa.list_(pa.int8()),
        "boxes": pa.list_(pa.list_(pa.int16(), 4)),
    }
)


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneSample:
    """A scene as the training scripts read it.

    `image` (H, W, 3) uint8 RGB; `things` (H, W) uint8, 0 or one plus the index of the visible object; `phrases` (N,)
    int64 indices into PHRASES; `boxes` (N, 4) float32 XYXY pixels.
    """

    image: np.ndarray
    things: np.ndarray
    phrases: np.ndarray
    boxes: np.ndarray


class SceneData:
    """The first `count` scenes of a split, read from `directory`; missing files are drawn first."""

    def __init__(self, directory: Path, split: Split, count: int) -> None:
        seeds = split_seeds(split, count)
        directory.mkdir(parents=True, exist_ok=True)
        parts = [seeds[start : start + _SCENES_PER_FILE] for start in range(0, count, _SCENES_PER_FILE)]
        paths = [directory / f"{split}-{part.start:07d}-{len(part)}.parquet" for part in parts]
        missing = [(part, path) for part, path in zip(parts, paths, strict=True) if not path.exists()]
        if missing:
            with ProcessPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(_draw_file, *zip(*missing, strict=True)))
        self._table = pa.concat_tables(pq.read_table(path, memory_map=True) for path in paths)
        self._columns = {name: self._table[name].combine_chunks() for name in ("phrases", "boxes")}

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, index: int) -> SceneSample:
        boxes = np.array(self._columns["boxes"][index].as_py(), np.float32).reshape(-1, 4)
        return SceneSample(
            image=_decode(self._table["image"][index].as_py()),
            things=_decode(self._table["things"][index].as_py()),
            phrases=np.array(self._columns["phrases"][index].as_py(), np.int64),
            boxes=boxes,
        )

    def sizes(self) -> np.ndarray:
        """Return the height and width of every image (N, 2), from the image headers."""
        headers = (Image.open(io.BytesIO(data.as_py())) for data in self._table["image"])
        return np.array([(header.height, header.width) for header in headers])


def _decode(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)))


def _draw_file(seeds: Sequence[int], path: Path) -> None:
    """Draw the scenes of `seeds` into one Parquet file, which appears only when it is complete."""
    rows = []
    for seed in seeds:
        scene = draw_scene(seed)
        things = np.zeros(scene.image.shape[:2], np.uint8)
        for index, drawn in enumerate(scene.objects):
            things[drawn.mask] = index + 1
        rows.append(
            {
                "image": _encode(scene.image, "JPEG", quality=92, subsampling=0),
                "things": _encode(things, "PNG", compress_level=3),
                "phrases": [PHRASES.index(drawn.phrase) for drawn in scene.objects],
                "boxes": [drawn.box for drawn in scene.objects],
            }
        )
    partial = path.with_suffix(f".{os.getpid()}.partial")
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), partial, compression="none")
    partial.replace(path)


def _encode(pixels: np.ndarray, image_format: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, **options)
    return buffer.getvalue()
