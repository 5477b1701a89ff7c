"""The drawn scenes: a function of the seed, with exact ground truth."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image

from wsss_ray.classes import ClassSet
from wsss_ray.demo.scenes import (
    CLASSES,
    PHRASES,
    SEEDS,
    Scene,
    class_id,
    draw_scene,
    split_seeds,
    tight_box,
    write_folder,
)
from wsss_ray.demo.shapes import DISHES
from wsss_ray.images.label_png import decode_truth


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(seed) for seed in split_seeds("validation", 60)]


def test_a_seed_gives_the_same_scene_again(scenes: list[Scene]) -> None:
    again = draw_scene(scenes[7].seed)
    assert np.array_equal(again.image, scenes[7].image)
    assert np.array_equal(again.semantic, scenes[7].semantic)
    assert [i.box for i in again.objects] == [i.box for i in scenes[7].objects]
    assert not np.array_equal(again.image[:100, :100], scenes[8].image[:100, :100])


def test_splits_share_no_seed() -> None:
    for first, second in itertools.combinations(SEEDS.values(), 2):
        assert first.stop <= second.start or second.stop <= first.start


def test_seeds_beyond_a_split_are_refused() -> None:
    assert split_seeds("test", 2) == range(1_100_000, 1_100_002)
    with pytest.raises(ValueError, match="'test' has 100000 scenes, not 100001"):
        split_seeds("test", 100_001)
    with pytest.raises(ValueError, match="train, validation, test"):
        split_seeds("testing", 1)  # type: ignore[arg-type]


def test_every_phrase_occurs(scenes: list[Scene]) -> None:
    assert {drawn.phrase for scene in scenes for drawn in scene.objects} == set(PHRASES)
    assert {tag for scene in scenes for tag in scene.tags} == set(CLASSES)


def test_sizes_vary_within_their_bounds(scenes: list[Scene]) -> None:
    sizes = [scene.image.shape[:2] for scene in scenes]
    assert all(160 <= side <= 320 for size in sizes for side in size)
    assert any(height > width for height, width in sizes)
    assert any(height < width for height, width in sizes)


def test_objects_are_one_to_four_and_not_small(scenes: list[Scene]) -> None:
    for scene in scenes:
        objects = [drawn for drawn in scene.objects if drawn.phrase in CLASSES]
        assert 1 <= len(objects) <= 4
        assert all(drawn.mask.sum() >= 250 for drawn in objects)


def test_masks_are_disjoint_and_boxes_tight(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert sum(drawn.mask.astype(int) for drawn in scene.objects).max() == 1
        for drawn in scene.objects:
            left, top, right, bottom = drawn.box
            inside = drawn.mask[top:bottom, left:right]
            assert inside.sum() == drawn.mask.sum()
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()


def test_tight_box_of_two_pixels() -> None:
    mask = np.zeros((5, 7), dtype=bool)
    mask[1, 2] = mask[3, 5] = True
    assert tight_box(mask) == (2, 1, 6, 4)


def test_truth_of_a_table_includes_its_dishes(scenes: list[Scene]) -> None:
    table = class_id("dining table")
    gained = own = 0
    for scene in scenes:
        for drawn in scene.objects:
            assert (scene.semantic[drawn.mask] == class_id(drawn.phrase)).all()
            own += int(drawn.mask.sum()) if drawn.phrase == "dining table" else 0
            gained += int(drawn.mask.sum()) if drawn.phrase in DISHES else 0
            assert drawn.phrase not in DISHES or "dining table" in scene.tags
        assert set(np.unique(scene.semantic)) - {0} <= {class_id(tag) for tag in scene.tags}
    assert table == 3
    assert 0.25 < gained / (gained + own) < 0.4


def test_ids_are_those_of_the_class_set() -> None:
    class_set = ClassSet.load("demo")
    assert {entry.name: entry.id for entry in class_set.classes} == {name: class_id(name) for name in CLASSES}
    assert set(class_set.by_name["dining table"].assist) == set(DISHES)


def test_folder_holds_images_tags_and_truth(tmp_path, scenes: list[Scene]) -> None:
    write_folder(tmp_path, "validation", 3)
    lines = [json.loads(line) for line in (tmp_path / "tags.jsonl").read_text().splitlines()]
    assert [line["tags"] for line in lines] == [list(scene.tags) for scene in scenes[:3]]
    for line, scene in zip(lines, scenes, strict=False):
        image = np.asarray(Image.open(tmp_path / "images" / line["file"]))
        assert np.abs(image.astype(int) - scene.image).mean() < 4
        truth = (tmp_path / "truth" / line["file"]).with_suffix(".png")
        label = decode_truth(truth.read_bytes(), size=image.shape[:2], allowed_ids=range(10), ignore_id=255)
        assert np.array_equal(label, scene.semantic)
        assert Image.open(truth).getpalette()[3:6] == [128, 0, 0]
