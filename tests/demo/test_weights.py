"""The shipped models: small, loadable by the product's own loaders, and good enough to show the pipeline."""

from pathlib import Path

import pytest

import wsss_ray.demo
from wsss_ray.config import DetectorConfig, SegmenterConfig
from wsss_ray.demo.components import detect, measure_chain, measure_detector, measure_segmenter
from wsss_ray.demo.scenes import Scene, draw_scene, split_seeds
from wsss_ray.models.sam.boxes import SamBoxes

WEIGHTS = Path(wsss_ray.demo.__file__).parent / "weights"


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(seed) for seed in split_seeds("validation", 12)]


@pytest.fixture(scope="module")
def segmenter() -> SamBoxes:
    return SamBoxes(SegmenterConfig(model="tiny"))


def test_weights_and_cards_take_at_most_ten_megabytes() -> None:
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"README.md", "model.safetensors", "config.json", "tokenizer.json"}
    assert sum(path.stat().st_size for path in files) <= 10_000_000


def test_the_chain_labels_scenes(scenes: list[Scene], segmenter: SamBoxes) -> None:
    found = detect(scenes, DetectorConfig(model="demo"), assist_words=True)
    assert measure_detector(scenes, found)["recall"] > 0.75
    assert measure_chain(scenes, found, segmenter)["miou"] > 0.7


def test_assist_words_find_the_dishes(scenes: list[Scene], segmenter: SamBoxes) -> None:
    config = DetectorConfig(model="demo")
    with_words, bare = (detect(scenes, config, assist_words=words) for words in (True, False))
    assert {"bowl", "plate"} <= {phrase for detections in with_words for phrase in detections.phrases}
    assert not {"bowl", "plate"} & {phrase for detections in bare for phrase in detections.phrases}
    table = [measure_chain(scenes, found, segmenter)["dining table"] for found in (with_words, bare)]
    assert table[0] - table[1] > 0.05


def test_exact_boxes_give_better_masks(scenes: list[Scene], segmenter: SamBoxes) -> None:
    assert measure_segmenter(scenes, segmenter)["miou"] > 0.8
