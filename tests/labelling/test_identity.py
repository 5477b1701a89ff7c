"""The settings in a run's identity."""

from __future__ import annotations

import dataclasses

import pytest

from wsss_ray.classes import ClassSet
from wsss_ray.config import DetectorConfig, LabelConfig, SegmenterConfig
from wsss_ray.labelling.plan import decided, identity
from wsss_ray.shards.image_shards import ShardSet

CONFIG = LabelConfig(
    input="in", output="out", detector=DetectorConfig(model="demo"), segmenter=SegmenterConfig(model="tiny")
)


def identity_of(config: LabelConfig, shards: ShardSet) -> dict[str, object]:
    return identity(decided(config, has_gpus=False), ClassSet.load("demo"), shards)


@pytest.fixture
def shards() -> ShardSet:
    class Shards:
        digest = "ab" * 32

    return Shards()  # type: ignore[return-value]


@pytest.mark.parametrize("section", ["detector", "segmenter"])
def test_only_stock_kernels_enter_the_identity(section: str, shards: ShardSet) -> None:
    auto = identity_of(CONFIG, shards)
    settings = dataclasses.replace(getattr(CONFIG, section), kernels="stock")
    stock = identity_of(dataclasses.replace(CONFIG, **{section: settings}), shards)
    assert "kernels" not in auto[section]  # type: ignore[operator]
    assert stock == {**auto, section: {**auto[section], "kernels": "stock"}}  # type: ignore[dict-item]


def test_settings_of_speed_alone_do_not_enter_the_identity(shards: ShardSet) -> None:
    faster = dataclasses.replace(CONFIG, detector=dataclasses.replace(CONFIG.detector, batch_size=99))
    assert identity_of(faster, shards) == identity_of(CONFIG, shards)
