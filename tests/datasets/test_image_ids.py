"""Ids are plain, distinct and a function of the set of paths."""

import itertools
import os
import random

import pytest

from wsss_ray.datasets.image_ids import image_ids
from wsss_ray.shards.row_checks import check_image_id


@pytest.mark.parametrize(
    ("path", "image_id"),
    [
        ("000000000009.jpg", "000000000009"),
        ("COCO_train2014_000000000009.jpg", "COCO_train2014_000000000009"),
        ("dogs/a 1.jpg", "dogs.2Fa.201"),
        ("a.b.jpg", "a.b"),
        ("a.2Fb.jpg", "a.2E2Fb"),
        ("a..b.jpg", "a.2E.b"),
        ("IMG.2020.jpg", "IMG.2E2020"),
        ("é.jpg", "_..C3.A9"),
        (".hidden.jpg", "_..2Ehidden"),
        ("noext", "noext"),
        ("a./b.jpg", "a.2E.2Fb"),
    ],
)
def test_an_id_is_the_escaped_path(path: str, image_id: str) -> None:
    assert image_ids([path]) == {path: image_id}


def test_paths_that_differ_in_the_suffix_keep_it() -> None:
    assert image_ids(["a.jpg", "a.png", "b.jpg"]) == {"a.jpg": "a.jpg", "a.png": "a.png", "b.jpg": "b"}
    chain = ["a.jpg", "a.png", "a.jpg.png", "a.jpg.png.gif"]
    ids = image_ids(chain)
    assert len(set(ids.values())) == 4


def test_ids_do_not_depend_on_the_order() -> None:
    paths = ["a.jpg", "a.png", "a.jpg.png", "b/a.jpg", "b.2Fa.png", "ä.jpg", "_.ä.jpg", "_..C3.A4.jpg"]
    expected = image_ids(paths)
    assert len(set(expected.values())) == len(paths)
    shuffled = paths.copy()
    random.Random(0).shuffle(shuffled)
    assert image_ids(shuffled) == expected


def test_no_two_short_paths_share_an_id() -> None:
    """All words over the letters that the escape is made of: were it not reversible, two would meet."""
    paths = ["".join(letters) for length in range(1, 6) for letters in itertools.product("._2Fé", repeat=length)]
    paths = [path for path in paths if path not in (".", "..")]
    ids = image_ids(f"{path}.jpg" for path in paths)
    assert len(set(ids.values())) == len(paths)
    for image_id in ids.values():
        check_image_id(image_id)


def test_long_paths_are_cut_and_stay_distinct() -> None:
    paths = ["x" * 300 + f"{number}.jpg" for number in range(3)] + ["é" * 100 + ".jpg", "y" * 200 + ".jpg"]
    ids = image_ids(paths)
    assert len(set(ids.values())) == 5
    assert max(len(image_id) for image_id in ids.values()) == 200
    assert ids["y" * 200 + ".jpg"] == "y" * 200
    assert ids[paths[0]].startswith("x" * 167 + "-")


def test_a_file_whose_name_is_the_cut_id_of_another_has_its_own() -> None:
    long = "z" * 300
    cut = image_ids([long])[long]
    again = image_ids([long, cut])
    third = again[cut]
    for paths in ([long, cut], [cut, long, f"{cut}.jpg"], [long, cut, third]):
        ids = image_ids(paths)
        assert len(set(ids.values())) == len(paths)
        assert all(len(image_id) <= 200 for image_id in ids.values())


def test_file_names_that_are_no_text_have_ids() -> None:
    path = os.fsdecode(b"caf\xe9.jpg")
    assert image_ids([path]) == {path: "caf.E9"}
