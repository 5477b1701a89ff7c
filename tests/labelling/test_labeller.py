"""The public labeller on drawn scenes: every kind of input, failures, and the picture to look at."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss_ray import Labeller, evaluate
from wsss_ray.classes import UnknownTagError
from wsss_ray.config import FusionConfig
from wsss_ray.demo.scenes import Scene, draw_scene, split_seeds
from wsss_ray.images.label_png import decode_label


@pytest.fixture(scope="module")
def labels() -> Labeller:
    return Labeller("demo")


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(seed) for seed in split_seeds("validation", 3)]


def test_paths_pictures_and_arrays_give_the_same_label(labels: Labeller, scenes: list[Scene], tmp_path: Path) -> None:
    scene = scenes[0]
    path = tmp_path / "scene.png"
    Image.fromarray(scene.image).save(path)
    results = labels.label([path, str(path), Image.fromarray(scene.image), scene.image], [scene.tags] * 4)
    assert [result.status for result in results] == ["ok"] * 4
    assert [result.row.image_id for result in results] == ["scene", "scene", "image-2", "image-3"]
    for result in results[1:]:
        np.testing.assert_array_equal(result.label, results[0].label)
    agreement = np.mean(results[0].label == scene.semantic)
    assert agreement > 0.8, "the demo's models know their own scenes"


def test_what_is_saved_and_drawn_is_the_label(labels: Labeller, scenes: list[Scene], tmp_path: Path) -> None:
    (result,) = labels.label([scenes[0].image], [scenes[0].tags])
    result.save(tmp_path / "label.png")
    np.testing.assert_array_equal(decode_label((tmp_path / "label.png").read_bytes()), result.label)
    overlay = np.asarray(result.overlay(boxes=False, opacity=1.0))
    for entry in labels.classes.classes:
        assert (overlay[result.label == entry.id] == entry.color).all()
    background = result.label == labels.classes.background_id
    np.testing.assert_array_equal(overlay[background], scenes[0].image[background])
    assert result.overlay().size == (scenes[0].image.shape[1], scenes[0].image.shape[0])
    assert result.instances
    assert sum(instance.area for instance in result.instances) >= np.count_nonzero(result.label)
    with pytest.raises(ValueError, match=r"label\.jpg does not end in \.png"):
        result.save(tmp_path / "label.jpg")
    height, width = result.label.shape
    assert repr(result) == f"<LabelledImage image-0, {width} x {height}, ok, {len(result.instances)} instances>"


def test_results_are_evaluated_by_their_own_classes(labels: Labeller, scenes: list[Scene], tmp_path: Path) -> None:
    results = labels.label([scene.image for scene in scenes], [scene.tags for scene in scenes])
    truths = [scene.semantic for scene in scenes]
    found = evaluate(results, truths)
    assert found.class_set == labels.classes.name
    assert found.miou == evaluate([result.label for result in results], truths, classes=labels.classes).miou
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    (failed,) = labels.label([tmp_path / "bad.jpg"], [scenes[0].tags])
    assert "decode" in evaluate([failed], truths[:1]).failed["0"]
    with pytest.raises(ValueError, match="label maps do not say their classes"):
        evaluate([results[0].label], truths[:1])


def test_a_damaged_file_fails_alone_and_says_why(labels: Labeller, scenes: list[Scene], tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff no picture")
    failed, gone, fine = labels.label([bad, tmp_path / "gone.jpg", scenes[1].image], [scenes[1].tags] * 3)
    assert (failed.status, gone.status, fine.status) == ("failed", "failed", "ok")
    assert failed.error is not None
    assert failed.error.startswith("decode: ")
    assert "No such file" in str(gone.error)
    with pytest.raises(ValueError, match=r"image bad has no label: decode: "):
        _ = failed.label
    with pytest.raises(ValueError, match=r"image bad has no label"):
        failed.save(tmp_path / "label.png")


def test_unusable_arguments_are_refused(labels: Labeller, scenes: list[Scene]) -> None:
    with pytest.raises(ValueError, match="1 images and 2 lists of tags"):
        labels.label([scenes[0].image], [["mushroom"], []])
    for single in ("scene.jpg", Path("scene.jpg"), Image.fromarray(scenes[0].image), scenes[0].image):
        with pytest.raises(TypeError, match=r"images is one image: give a list of images"):
            labels.label(single, [["mushroom"]])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"tags of image 0 are one text: give a list"):
        labels.label([scenes[0].image], ["mushroom"])
    with pytest.raises(UnknownTagError, match="mushrom"):
        labels.label([scenes[0].image], [["mushrom"]])
    with pytest.raises(ValueError, match=r"float64 of shape \(4, 4\)"):
        labels.label([np.zeros((4, 4))], [["mushroom"]])


def test_without_tags_the_label_is_background(labels: Labeller, scenes: list[Scene]) -> None:
    (result,) = labels.label([scenes[0].image], [[]])
    assert result.status == "no_tags"
    assert not result.label.any()


def test_threads_share_a_labeller(labels: Labeller, scenes: list[Scene]) -> None:
    expected = labels.label([scene.image for scene in scenes], [scene.tags for scene in scenes])
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda scene: labels.label([scene.image], [scene.tags])[0], scenes))
    for result, other in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result.label, other.label)


def test_configurations_are_joined_and_changed(tmp_path: Path) -> None:
    extra = tmp_path / "extra.yaml"
    extra.write_text("detector: {box_threshold: 0.4}\n")
    labels = Labeller.from_config("demo", str(extra), fusion=FusionConfig(paint="area"))
    config = labels.config
    assert (config.detector.model, config.detector.box_threshold, config.fusion.paint) == ("demo", 0.4, "area")
    extra.write_text("detector: {box_treshold: 0.4}\n")
    with pytest.raises(ValueError, match=r"extra\.yaml:1"):
        Labeller.from_config("demo", str(extra))
    with pytest.raises(ValueError, match="demoo"):
        Labeller("demoo")
    with pytest.raises(ValueError, match=r"LabellerConfig has no field 'fusoin'\. Did you mean .fusion."):
        Labeller.from_config("demo", fusoin=FusionConfig(paint="area"))
