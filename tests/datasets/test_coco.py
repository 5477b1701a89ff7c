"""COCO listings: names of 2014 and 2017, categories, crowd tags, truth, and hostile or broken files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsss_ray.classes import ClassSet
from wsss_ray.config import ShardConfig
from wsss_ray.datasets.coco import CocoSource
from wsss_ray.datasets.items import Listing, TruthFile, TruthInstances
from wsss_ray.datasets.rows import Rejected, RowMaker, RowRules

COCO = ClassSet.load("coco")
SQUARE = [[0, 0, 2, 0, 2, 2, 0, 2]]


def write_coco(root: Path, **changes: Any) -> ShardConfig:
    """A COCO of three images; `changes` replace parts of the JSON."""
    names = ["COCO_train2014_000000000009.jpg", "000000000025.jpg", "000000000030.jpg"]
    (root / "images").mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (6, 4)).save(root / "images" / name)
    content = {
        "images": [
            {"id": 9, "file_name": names[0], "height": 4, "width": 6},
            {"id": 25, "file_name": names[1], "height": 4, "width": 6},
            {"id": 30, "file_name": names[2], "height": 4, "width": 6},
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}, {"id": 72, "name": "tv"}],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 18, "iscrowd": 0, "segmentation": SQUARE},
            {"id": 2, "image_id": 9, "category_id": 1, "iscrowd": 1, "segmentation": {"size": [4, 6], "counts": [24]}},
            {"id": 3, "image_id": 25, "category_id": 72, "iscrowd": 0, "segmentation": SQUARE},
            {"id": 4, "image_id": 9, "category_id": 18, "iscrowd": 0, "segmentation": SQUARE},
        ],
        **changes,
    }
    (root / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    return ShardConfig(
        input=str(root / "images"),
        output=str(root / "out"),
        source="coco",
        classes="coco",
        annotations=str(root / "instances.json"),
    )


def with_options(config: ShardConfig, **options: Any) -> ShardConfig:
    return ShardConfig(**{**config.__dict__, **options})


def tags_of(listing: Listing) -> dict[str, tuple[str, ...] | None]:
    return {item.image_id: item.tags for item in listing.items}


def test_ids_tags_and_truth(tmp_path: Path) -> None:
    listing = CocoSource().list_images(write_coco(tmp_path), COCO)
    assert tags_of(listing) == {
        "000000000025": ("tv",),
        "000000000030": (),
        "COCO_train2014_000000000009": ("person", "dog"),
    }
    assert listing.exif == "ignore"
    truth = listing.items[2].truth
    assert isinstance(truth, TruthInstances)
    dog, person = COCO.by_name["dog"].id, COCO.by_name["person"].id
    assert [entry[:2] for entry in json.loads(truth.annotations)] == [[dog, 0], [person, 1], [dog, 0]]
    assert (truth.height, truth.width) == (4, 6)
    assert listing.items[1].truth == TruthInstances(annotations=b"[]", height=4, width=6)


def test_crowd_tags_are_a_choice(tmp_path: Path) -> None:
    config = with_options(write_coco(tmp_path), crowd_tags=False)
    assert tags_of(CocoSource().list_images(config, COCO))["COCO_train2014_000000000009"] == ("dog",)


def test_real_coco(shared: Path) -> None:
    root = shared / "data/coco"
    config = ShardConfig(
        input=str(root / "images/val2017"),
        output="unused",
        source="coco",
        classes="coco",
        annotations=str(root / "annotations/instances_val2017.json"),
    )
    listing = CocoSource().list_images(config, COCO)
    assert len(listing.items) == 100
    assert all(item.size for item in listing.items)
    expected = json.loads((root / "annotations/image_tags_val2017.json").read_text(encoding="utf-8"))
    names = {key.removesuffix(".jpg").zfill(12): tags for key, tags in expected.items()}
    assert {item.image_id: set(item.tags or ()) for item in listing.items} == {
        key: {COCO.canonical(tag) for tag in tags} for key, tags in names.items()
    }


def test_a_wrong_folder_is_answered_with_the_right_one(tmp_path: Path) -> None:
    config = with_options(write_coco(tmp_path), input=str(tmp_path))
    with pytest.raises(ValueError, match=rf"none of the 3 images .* Did you mean --input {tmp_path}/images\?"):
        CocoSource().list_images(config, COCO)


def test_an_absent_image_is_listed_without_a_size(tmp_path: Path) -> None:
    config = write_coco(tmp_path)
    (tmp_path / "images/000000000025.jpg").unlink()
    assert {item.image_id: item.size is None for item in CocoSource().list_images(config, COCO).items}["000000000025"]


def test_names_of_other_jsons_are_mapped_by_name_and_alias(tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "Dog"}, {"id": 18, "name": "person"}, {"id": 72, "name": "potted plant"}]
    listing = CocoSource().list_images(write_coco(tmp_path, categories=categories), ClassSet.load("voc"))
    assert tags_of(listing)["COCO_train2014_000000000009"] == ("dog", "person")


def test_without_categories_the_class_set_knows_the_ids(tmp_path: Path) -> None:
    assert tags_of(CocoSource().list_images(write_coco(tmp_path, categories=[]), COCO))["000000000025"] == ("tv",)


def test_unknown_categories(tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "persn"}, {"id": 18, "name": "dog"}, {"id": 72, "name": "tv"}]
    config = write_coco(tmp_path, categories=categories)
    with pytest.raises(ValueError, match=r"instances.json: annotations\[1\]: tag 'persn' .* Near: person"):
        CocoSource().list_images(config, COCO)
    listing = CocoSource().list_images(with_options(config, unknown_tags="drop"), COCO)
    assert listing.dropped_tags == {"persn": 1}
    truth = listing.items[2].truth
    assert isinstance(truth, TruthInstances)
    assert len(json.loads(truth.annotations)) == 2


def test_truth_from_a_folder_of_pngs(tmp_path: Path) -> None:
    config = with_options(write_coco(tmp_path), truth=str(tmp_path / "masks"))
    (tmp_path / "masks").mkdir()
    with pytest.raises(ValueError, match=r"truth PNG for none of the 3 images, e.g. COCO_train2014_000000000009.png"):
        CocoSource().list_images(config, COCO)
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "masks/000000000025.png")
    listing = CocoSource().list_images(config, COCO)
    size = (tmp_path / "masks/000000000025.png").stat().st_size
    assert [item.truth for item in listing.items] == [TruthFile(path="000000000025.png", size=size), None, None]


def test_annotations_without_segmentation_give_no_truth(tmp_path: Path) -> None:
    boxes = [{"id": 1, "image_id": 9, "category_id": 18, "bbox": [0, 0, 2, 2]}]
    listing = CocoSource().list_images(write_coco(tmp_path, annotations=boxes), COCO)
    assert [item.truth for item in listing.items] == [None, None, None]
    assert listing.notes == ("the annotations have no segmentation: no truth.",)


IMAGE = {"id": 9, "file_name": "a.jpg", "height": 4, "width": 6}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": [{**IMAGE, "file_name": "../../etc/passwd"}]}, r"images\[0\]: .* has a `..`"),
        ({"images": [{**IMAGE, "file_name": "/etc/passwd"}]}, r"images\[0\]: .* absolute"),
        ({"images": [{**IMAGE, "file_name": None}]}, r"images\[0\]: `id` must be"),
        ({"images": [{**IMAGE, "id": "9"}]}, r"images\[0\]: `id` must be"),
        ({"images": [{**IMAGE, "height": -4}]}, r"images\[0\]: `height` and `width`"),
        ({"images": [{**IMAGE, "width": 1e400}]}, r"images\[0\]: `height` and `width`"),
        ({"images": [IMAGE, {**IMAGE, "id": 10}]}, r"images\[1\]: the image a.jpg .* listed twice"),
        ({"images": [IMAGE, {**IMAGE, "file_name": "b.jpg"}]}, r"images\[1\]: the image b.jpg .* listed twice"),
        ({"images": ["a.jpg"]}, r"images\[0\] is not an object"),
        ({"images": []}, "lists no image"),
        ({"images": None}, "not an instances JSON"),
        ({"annotations": {"a": 1}}, "not an instances JSON"),
        ({"annotations": [{"image_id": 77, "category_id": 1}]}, r"annotations\[0\]: no image has the id 77"),
        ({"annotations": [{"image_id": [], "category_id": 1}]}, r"annotations\[0\]: no image has the id \[\]"),
        ({"annotations": [{"image_id": 9, "category_id": 99}]}, r"annotations\[0\]: no category has the id 99"),
        ({"annotations": [{"image_id": 9, "category_id": {}}]}, r"annotations\[0\]: no category has the id {}"),
        ({"annotations": [{"image_id": 9, "category_id": 1, "iscrowd": 2}]}, r"annotations\[0\]: `iscrowd`"),
        ({"categories": 5}, "`categories` is not a list"),
        ({"categories": {"id": 1}}, "`categories` is not a list"),
        ({"images": [{**IMAGE, "file_name": "\ud800.jpg"}]}, r"images\[0\]: the file name .* is not Unicode"),
        ({"categories": [{"id": 1, "name": 3}]}, r"categories\[0\]: `id` must be"),
        (
            {"categories": [{"id": 1, "name": "dog"}, {"id": 1, "name": "cat"}]},
            r"categories\[1\]: the id 1 is used twice",
        ),
    ],
)
def test_broken_files_are_refused_with_their_place(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"instances.json.*{message}"):
        CocoSource().list_images(write_coco(tmp_path, **changes), COCO)


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", "[" * 100_000, '"\\ud800"'])
def test_what_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    config = write_coco(tmp_path)
    (tmp_path / "instances.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"instances.json is not (valid JSON|an instances JSON)"):
        CocoSource().list_images(config, COCO)


@pytest.mark.parametrize("depth", [10, 300, 700, 900, 950, 985, 990, 2000, 100_000])
def test_nested_lists_end_in_one_rejected_image_or_a_plain_error(tmp_path: Path, depth: int) -> None:
    """Python's limit is reached at another depth in each function, so several depths are tried in each field."""
    config = write_coco(tmp_path)
    whole = (tmp_path / "instances.json").read_text(encoding="utf-8")
    nested = "[" * depth + "]" * depth
    refused: list[str] = []
    for before, after in (
        (json.dumps(SQUARE), nested),
        ('"counts": [24]', f'"counts": {nested}'),
        ('"size": [4, 6]', f'"size": {nested}'),
        ('"image_id": 25', f'"image_id": {nested}'),
        ('"name": "dog"', f'"name": {nested}'),
    ):
        (tmp_path / "instances.json").write_text(whole.replace(before, after), encoding="utf-8")
        try:
            listing = CocoSource().list_images(config, COCO)
        except ValueError as error:
            refused.append(str(error))
            continue
        rules = RowRules(exif="ignore", max_pixels=100, max_file_bytes=10_000, order="area", crowd="include")
        maker = RowMaker(listing, COCO, rules)
        made = [maker.make(item, maker.fetch(item)) for item in listing.items]  # type: ignore[arg-type]  # all there
        rejected = [row for row in made if isinstance(row, Rejected)]
        assert rejected
        assert all(row.reason.startswith("bad segmentation: ") for row in rejected)
    assert all(text.startswith(str(tmp_path / "instances.json")) for text in refused)
    assert len(refused) >= 2, "an id and a name are never lists"


def test_annotations_are_needed(tmp_path: Path) -> None:
    config = write_coco(tmp_path)
    with pytest.raises(ValueError, match="COCO needs --annotations"):
        CocoSource().list_images(with_options(config, annotations=None), COCO)
    with pytest.raises(ValueError, match=r"there is no instances JSON at .*none.json"):
        CocoSource().list_images(with_options(config, annotations=str(tmp_path / "none.json")), COCO)
