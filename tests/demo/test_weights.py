"""The shipped models: small, loadable by the package, and good enough to show the pipeline."""

from pathlib import Path

import pytest

import wsss_ray.demo
from wsss_ray.demo.components import detect, measure_chain, measure_detector, measure_segmenter
from wsss_ray.demo.scenes import Scene, draw_scene, split_seeds
from wsss_ray.labeller import Labeller

WEIGHTS = Path(wsss_ray.demo.__file__).parent / "weights"


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(seed) for seed in split_seeds("validation", 12)]


@pytest.fixture(scope="module")
def labeller() -> Labeller:
    return Labeller("demo")


def test_weights_and_cards_take_at_most_ten_megabytes() -> None:
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"README.md", "model.safetensors", "config.json", "tokenizer.json"}
    assert sum(path.stat().st_size for path in files) <= 10_000_000


def test_the_chain_labels_scenes(scenes: list[Scene], labeller: Labeller) -> None:
    found = detect(scenes, labeller)
    assert measure_detector(scenes, found)["recall"] > 0.75
    assert measure_chain(scenes, found, labeller)["miou"] > 0.7


def test_assist_words_find_the_dishes(scenes: list[Scene], labeller: Labeller) -> None:
    bare = Labeller.from_config("demo", assist_words=False)
    found, found_bare = detect(scenes, labeller), detect(scenes, bare)
    assert {"bowl", "plate"} <= {phrase for detections in found for phrase in detections.phrases}
    assert not {"bowl", "plate"} & {phrase for detections in found_bare for phrase in detections.phrases}
    table = measure_chain(scenes, found, labeller)["dining table"]
    assert table - measure_chain(scenes, found_bare, bare)["dining table"] > 0.05


def test_exact_boxes_give_better_masks(scenes: list[Scene]) -> None:
    assert measure_segmenter(scenes)["miou"] > 0.8
