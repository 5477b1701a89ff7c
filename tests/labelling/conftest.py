"""Fixtures: photos as image shards, small networks with random weights, and runs of the labelling job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import random_models
from label_runs import image_rows, write_shards

from wsss_ray.config import DetectorConfig, LabelConfig, RayConfig, SegmenterConfig
from wsss_ray.engine.resources import Resources
from wsss_ray.labelling import job as labelling
from wsss_ray.storage.storage import Storage

TAGS = (["dog"], ["cat", "sofa"], ["person", "horse"])


@pytest.fixture(scope="session")
def photo_rows(shared: Path) -> pa.Table:
    """Return nine real photos of different sizes with invented tags."""
    folder = shared / "data" / "voc" / "VOCdevkit" / "VOC2012" / "JPEGImages"
    paths = sorted(folder.glob("*.jpg"))[:9]
    return image_rows({path.stem: (path.read_bytes(), TAGS[i % 3]) for i, path in enumerate(paths)})


@pytest.fixture(scope="session")
def photos(photo_rows: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of image shards with the nine photos in three units."""
    folder = tmp_path_factory.mktemp("photos")
    write_shards(Storage(str(folder)), photo_rows, images_per_unit=3)
    return folder


@pytest.fixture(scope="session")
def base_config(tmp_path_factory: pytest.TempPathFactory) -> LabelConfig:
    """Return a configuration with small random models; a test sets input and output."""
    detector = random_models.write_detector(tmp_path_factory.mktemp("detector"), "mm-grounding-dino", seed=8)
    segmenter = random_models.write_sam(tmp_path_factory.mktemp("segmenter"), seed=1)
    return LabelConfig(
        input="unset",
        output="unset",
        detector=DetectorConfig(model=str(detector)),
        segmenter=SegmenterConfig(model="tiny", checkpoint=str(segmenter)),
        status_seconds=60,
        ray=RayConfig(actors=1),
    )


@pytest.fixture(scope="session")
def configure(base_config: LabelConfig) -> Callable[..., LabelConfig]:
    """Return a function `configure(input, output, **fields)` that makes the configuration of one run."""

    def make(source: Path | str, output: Path | str, **fields: object) -> LabelConfig:
        return replace(base_config, input=str(source), output=str(output), **fields)

    return make


@pytest.fixture(scope="session")
def finished(
    photos: Path,
    configure: Callable[..., LabelConfig],
    local_ray: Resources,
    tmp_path_factory: pytest.TempPathFactory,
) -> LabelConfig:
    """Return the configuration of a finished, undisturbed run with PNGs."""
    config = configure(photos, tmp_path_factory.mktemp("finished"), png=True)
    labelling.run(config)
    return config
