"""Python in the documents runs: examples of extensions register and work, and the OWLv2 example is the tested file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from documents import DOCUMENTS, blocks
from PIL import Image
from repository import REPOSITORY

from wsss_ray import Labeller
from wsss_ray.classes import ClassSet
from wsss_ray.config import FusionConfig, SegmenterConfig, ShardConfig
from wsss_ray.datasets.source import SOURCES
from wsss_ray.demo.scenes import draw_scene, split_seeds
from wsss_ray.export.format import EXPORT_FORMATS
from wsss_ray.models.registries import FUSION_RULES, SEGMENTERS
from wsss_ray.shards.columns import LABEL_COLUMNS

(EXTENDING,) = [path for path in DOCUMENTS if path.name == "extending.md"]
PYTHON = [(path, block.text) for path in DOCUMENTS for block in blocks(path) if block.language == "python"]


@pytest.fixture(scope="module")
def registered() -> Iterator[None]:
    """Run the page's examples that register something, and remove afterwards what they registered.

    Names that other tests have registered are removed meanwhile: they are the same ones.
    """
    registries: list[Any] = [SEGMENTERS, FUSION_RULES, SOURCES, EXPORT_FORMATS, LABEL_COLUMNS]
    removed = [_remove(registry, "tests.") for registry in registries]
    for path, text in PYTHON:
        if path == EXTENDING and ".register(" in text and "class Owlv2Detector" not in text:
            exec(compile(text, str(path), "exec"), {"__name__": "documented"})
    yield
    for registry, entries in zip(registries, removed, strict=True):
        _remove(registry, "documented")
        registry._entries |= entries


def _remove(registry: Any, prefix: str) -> dict[str, Any]:
    """Remove the entries whose module's name starts so, and return them."""
    found = {name: entry for name, entry in registry._entries.items() if entry.__module__.startswith(prefix)}
    registry._entries = {name: entry for name, entry in registry._entries.items() if name not in found}
    return found


@pytest.mark.parametrize(("path", "text"), PYTHON, ids=[f"{path.stem}-{n}" for n, (path, _) in enumerate(PYTHON)])
def test_python_compiles(path: Path, text: str) -> None:
    compile(text, str(path), "exec")


def test_the_example_of_a_detector_is_the_tested_file() -> None:
    (shown,) = [text for path, text in PYTHON if path == EXTENDING and "class Owlv2Detector" in text]
    assert shown == (REPOSITORY / "examples/owlv2_detector.py").read_text()


@pytest.mark.processes  # importing torch starts ldconfig
@pytest.mark.usefixtures("registered")
def test_the_segmenter_and_the_rule_label() -> None:
    scene = draw_scene(next(iter(split_seeds("validation", 1))))
    segmenter = SegmenterConfig(type="whole-box", model="none")
    labels = Labeller.from_config("demo", segmenter=segmenter, fusion=FusionConfig(paint="largest"))
    (result,) = labels.label([scene.image], [scene.tags])
    assert result.status == "ok"
    largest = max(result.instances, key=lambda found: found.mask().sum())
    assert (result.label[largest.mask()] == largest.class_id).all()


@pytest.mark.usefixtures("registered")
def test_the_source_lists(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "dog-1.png")
    config = ShardConfig(input=str(tmp_path), output=str(tmp_path / "out"), source="tagged-names")
    listing = SOURCES.get("tagged-names")().list_images(config, ClassSet.load("coco"))
    assert [(item.image_id, item.tags) for item in listing.items] == [("dog-1", ("dog",))]


@pytest.mark.usefixtures("registered")
def test_the_export_format_is_registered() -> None:
    assert EXPORT_FORMATS.get("tag-files").holds_images


@pytest.mark.processes
def test_the_five_lines_of_the_readme_label_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = [text for path, text in PYTHON if path.name == "README.md"]
    assert len([line for line in text.splitlines() if line.strip()]) <= 5
    monkeypatch.chdir(tmp_path)
    scene = next(
        scene
        for seed in split_seeds("validation", 96)
        if {"dining table", "cat"} <= set((scene := draw_scene(seed)).tags)
    )
    Image.fromarray(scene.image).save("scene.jpg", quality=95)
    names: dict[str, Any] = {}
    exec(compile(text, "README.md", "exec"), names)
    saved = np.array(Image.open("scene.png"))
    np.testing.assert_array_equal(saved, names["results"][0].label)
    assert len(np.unique(saved)) > 1
