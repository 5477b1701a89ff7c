"""VOC listings: the three list forms, the four sources of tags, the truth folders, and trees that cannot be used."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsss_ray.classes import ClassSet
from wsss_ray.config import ShardConfig
from wsss_ray.datasets.items import Listing, TruthFile
from wsss_ray.datasets.voc import VocSource
from wsss_ray.datasets.voc_list import parse_split_list

VOC = ClassSet.load("voc")
IDS = ("2007_000032", "2007_000039", "2007_000063")


def make_tree(root: Path) -> Path:
    """A VOC2012 with three images; the first two have official masks, the second an augmented one too."""
    tree = root / "VOCdevkit/VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationClassAug", "ImageSets/Segmentation"):
        (tree / folder).mkdir(parents=True)
    for number, voc_id in enumerate(IDS):
        Image.new("RGB", (6, 4)).save(tree / f"JPEGImages/{voc_id}.jpg")
        mask = Image.fromarray(np.full((4, 6), number, np.uint8))
        if number < 2:
            mask.save(tree / f"SegmentationClass/{voc_id}.png")
        if number == 1:
            mask.save(tree / f"SegmentationClassAug/{voc_id}.png")
    write_list(tree, "train", *IDS)
    return tree


def write_list(tree: Path, name: str, *lines: str) -> None:
    (tree / f"ImageSets/Segmentation/{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_xml(tree: Path, voc_id: str, *names: str) -> None:
    (tree / "Annotations").mkdir(exist_ok=True)
    objects = "".join(f"<object><name>{name}</name><difficult>1</difficult></object>" for name in names)
    (tree / f"Annotations/{voc_id}.xml").write_text(f"<annotation>{objects}</annotation>")


def list_tree(tree: Path, **options: Any) -> Listing:
    return VocSource().list_images(
        ShardConfig(**{"input": str(tree), "output": "unused", "source": "voc", **options}), VOC
    )


def tags_of(listing: Listing) -> list[tuple[str, ...] | None]:
    assert [item.image_id for item in listing.items] == list(IDS)
    return [item.tags for item in listing.items]


def truths_of(listing: Listing) -> list[str | None]:
    return [item.truth.path if isinstance(item.truth, TruthFile) else None for item in listing.items]


def test_bare_ids_with_tags_from_the_masks(tmp_path: Path) -> None:
    listing = list_tree(make_tree(tmp_path))
    assert tags_of(listing) == [None, None, None], "read from the mask later"
    assert truths_of(listing) == [
        "SegmentationClass/2007_000032.png",
        "SegmentationClassAug/2007_000039.png",
        None,
    ]
    assert [item.path for item in listing.items] == [f"JPEGImages/{voc_id}.jpg" for voc_id in IDS]
    assert all(item.size for item in listing.items)
    assert listing.exif == "ignore"
    assert listing.notes == ("tags from the truth masks.",)


def test_the_devkit_the_year_and_a_link_to_it_are_the_same(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    (tmp_path / "link").symlink_to(tree)
    items = list_tree(tree).items
    assert list_tree(tree.parent).items == items
    assert list_tree(tmp_path / "link").items == items


def test_several_years_are_named(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    (tree.parent / "VOC2007/JPEGImages").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"several years \(VOC2007, VOC2012\)"):
        list_tree(tree.parent)
    with pytest.raises(ValueError, match=rf"no VOC tree.* Did you mean --input {tmp_path}/VOCdevkit\?"):
        list_tree(tmp_path)


def test_pairs_of_paths(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    lines = [f"/JPEGImages/{voc_id}.jpg /SegmentationClassAug/{voc_id}.png" for voc_id in IDS[:2]]
    write_list(tree, "pairs", *lines, f"JPEGImages/{IDS[2]}.jpg")
    listing = list_tree(tree, split="pairs")
    assert truths_of(listing) == [*(f"SegmentationClassAug/{voc_id}.png" for voc_id in IDS[:2]), None]
    absent = listing.items[0].truth
    assert isinstance(absent, TruthFile)
    assert absent.size is None, "named by the list, not there: rejected later, with its reason"
    assert truths_of(list_tree(tree, split="pairs", voc_truth="SegmentationClass"))[:2] == [
        f"SegmentationClass/{voc_id}.png" for voc_id in IDS[:2]
    ]


def test_ids_with_class_numbers_from_zero(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    write_list(tree, "numbered", f"{IDS[0]} 14 0", f"{IDS[1]} 19", IDS[2])
    assert tags_of(list_tree(tree, split="numbered")) == [("aeroplane", "person"), ("tv monitor",), ()]
    write_list(tree, "numbered", f"{IDS[0]} 20")
    with pytest.raises(ValueError, match=r"numbered.txt:1: class 20: the class set has 20, counted from 0"):
        list_tree(tree, split="numbered")


def test_a_list_file_by_path(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    (tmp_path / "mine.txt").write_text(f"\ufeff{IDS[1]}\r\n\r\n")
    assert [item.image_id for item in list_tree(tree, split=str(tmp_path / "mine.txt")).items] == [IDS[1]]
    with pytest.raises(ValueError, match="there is no split list at"):
        list_tree(tree, split=str(tmp_path / "none.txt"))
    with pytest.raises(ValueError, match="has no list 'val': it has train"):
        list_tree(tree, split="val")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "list.txt: the list is empty"),
        ("a\nb\na\n", "list.txt:3: a is listed twice, first in list.txt:1"),
        ("/x/a.jpg /y/a.png\n/z/a.jpg\n", "list.txt:2: a is listed twice"),
        ("a\n/x/b.jpg\n", "list.txt:2 has paths, list.txt:1 an id"),
        ("/x/a.jpg /y/a.png /z/a.png", "list.txt:1: 3 paths"),
        ("a -1\n", "list.txt:1: this is a list of ImageSets/Main"),
        ("a dog\n", "list.txt:1: 'a dog' is none of"),
        ("a 0 1e3\n", "list.txt:1: .* is none of"),
        ("/x/a.jpg\n/../../etc/passwd.jpg\n", "list.txt:2: .* has a `..`"),
        ("//etc/passwd.jpg /x\n", "list.txt:1: '/etc/passwd.jpg' is an absolute path"),
        ("/x/a.jpg ../../a.png\n", "list.txt:1: '../../a.png' has a `..`"),
    ],
)
def test_malformed_lists_are_refused_with_their_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_split_list(text, "list.txt")


def test_xml_where_every_image_has_one(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    write_xml(tree, IDS[0], "person", "tvmonitor", "person")
    write_xml(tree, IDS[1], "diningtable")
    assert tags_of(list_tree(tree)) == [None, None, None]
    with pytest.raises(ValueError, match=rf"1 of 3 images have no XML in .*Annotations: {IDS[2]}\."):
        list_tree(tree, voc_tags="xml")
    write_xml(tree, IDS[2])
    for kind in ("auto", "xml"):
        listing = list_tree(tree, voc_tags=kind)
        assert tags_of(listing) == [("person", "tv monitor"), ("dining table",), ()]
        assert listing.notes == ("tags from XML annotations.",)
    assert tags_of(list_tree(tree, voc_tags="masks")) == [None, None, None]


def test_unknown_names_in_xml(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    for voc_id in IDS:
        write_xml(tree, voc_id, "dogg", "cat")
    with pytest.raises(ValueError, match=rf"1 unknown tag:\n  .*{IDS[0]}.xml: tag 'dogg' .* dog.*\(2 more times\)"):
        list_tree(tree)
    listing = list_tree(tree, unknown_tags="drop")
    assert tags_of(listing) == [("cat",)] * 3
    assert listing.dropped_tags == {"dogg": 3}


def test_hostile_xml_is_refused(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    for voc_id in IDS:
        write_xml(tree, voc_id, "cat")
    attack = (
        '<!DOCTYPE annotation [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><folder>&x;</folder></annotation>'
    )
    (tree / f"Annotations/{IDS[1]}.xml").write_text(attack)
    with pytest.raises(ValueError, match=rf"{IDS[1]}.xml: refused: the XML has a DTD"):
        list_tree(tree)


def test_cls_labels(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    vectors = {voc_id: np.zeros(20, np.float32) for voc_id in IDS}
    vectors[IDS[0]][[11, 0]] = 1
    np.save(tmp_path / "cls.npy", vectors, allow_pickle=True)  # type: ignore[arg-type]
    path = str(tmp_path / "cls.npy")
    assert tags_of(list_tree(tree, tags=path)) == [("aeroplane", "dog"), (), ()]
    with pytest.raises(ValueError, match="--voc-tags xml does not read one"):
        list_tree(tree, tags=path, voc_tags="xml")
    with pytest.raises(ValueError, match="--voc-tags cls_labels needs --tags"):
        list_tree(tree, voc_tags="cls_labels")
    del vectors[IDS[2]]
    np.save(tmp_path / "cls.npy", vectors, allow_pickle=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"no tags for 1 of 3 images: {IDS[2]}\."):
        list_tree(tree, tags=path)


def test_truth_folders(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    for voc_id in IDS:
        write_xml(tree, voc_id)
    assert truths_of(list_tree(tree, voc_truth="none")) == [None] * 3
    assert truths_of(list_tree(tree, voc_truth="SegmentationClass"))[1] == f"SegmentationClass/{IDS[1]}.png"
    with pytest.raises(ValueError, match=r"Folders here: Annotations, ImageSets, JPEGImages"):
        list_tree(tree, voc_truth="Segmentation")
    with pytest.raises(ValueError, match=r"has a `\.\.`"):
        list_tree(tree, voc_truth="../../masks")


def test_masks_cannot_give_tags_without_truth(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither an XML for every image nor truth masks"):
        list_tree(make_tree(tmp_path), voc_truth="none")


@pytest.mark.parametrize("folder", ["JPEGImages", "SegmentationClass", "Annotations"])
def test_a_folder_that_is_a_link_out_of_the_tree_is_refused(tmp_path: Path, folder: str) -> None:
    tree = make_tree(tmp_path)
    for voc_id in IDS:
        write_xml(tree, voc_id)
    (tree / folder).rename(tmp_path / "elsewhere")
    (tree / folder).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=rf"{folder} is a link that leads out of the tree, to {tmp_path}/elsewhere"):
        list_tree(tree)


def test_an_absent_image_is_listed_and_none_at_all_refused(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    (tree / f"JPEGImages/{IDS[0]}.jpg").unlink()
    assert [item.size is None for item in list_tree(tree).items] == [True, False, False]
    write_list(tree, "train", "a", "b")
    with pytest.raises(ValueError, match=r"none of the 2 images of the list exists; the first is .*JPEGImages/a.jpg"):
        list_tree(tree)


def test_real_voc(shared: Path) -> None:
    voc = shared / "data/voc"
    listing = list_tree(voc / "VOCdevkit", split="train_aug", tags=str(voc / "cls_labels.npy"))
    assert len(listing.items) == 150
    assert all(item.size and item.truth for item in listing.items)
    assert {path.split("/")[0] for path in truths_of(listing) if path} == {"SegmentationClassAug"}
    assert listing.items[0].image_id == "2007_000063"
    assert listing.items[0].tags == ("chair", "dog")
