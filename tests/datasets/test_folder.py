"""Folders of images: what is listed, under which ids, with which tags and truth."""

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from wsss_ray.classes import ClassSet
from wsss_ray.config import ShardConfig
from wsss_ray.datasets.folder import FolderSource
from wsss_ray.datasets.items import Listing, TruthFile
from wsss_ray.storage.storage import Storage

VOC = ClassSet.load("voc")


def make_folder(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    return root


def list_images(root: Path | str, **options: Any) -> Listing:
    return FolderSource().list_images(ShardConfig(**{"input": str(root), "output": "unused", **options}), VOC)


def write_csv(tmp_path: Path, *lines: str) -> str:
    path = tmp_path / "tags.csv"
    path.write_text("\n".join(["file,tags", *lines]) + "\n", encoding="utf-8")
    return str(path)


def test_the_same_tags_for_every_image_at_any_depth(tmp_path: Path) -> None:
    root = make_folder(
        tmp_path / "in", "b.JPG", "a/b/c.png", "a/d.webp", "notes.txt", ".hidden.jpg", ".cache/e.jpg", "a/._f.jpg"
    )
    for tags in (("person", "dog"), ("dog,person",), ("person, dog",)):
        listing = list_images(root, tags_for_all=tags)
        assert [(item.image_id, item.path, item.tags) for item in listing.items] == [
            ("a.2Fb.2Fc", "a/b/c.png", ("dog", "person")),
            ("a.2Fd", "a/d.webp", ("dog", "person")),
            ("b", "b.JPG", ("dog", "person")),
        ]
    assert listing.exif == "apply"
    assert listing.items[2].size == 5
    assert all(item.truth is None for item in listing.items)


def test_a_tag_file_names_the_images(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "in", "b.jpg", "a/photo.data", "left.jpg", "left.png")
    tags = write_csv(tmp_path, "b.jpg,tvmonitor;dog", "a/photo.data,", "gone.jpg,cat")
    listing = list_images(root, tags=tags)
    assert [(item.image_id, item.tags, item.size is None) for item in listing.items] == [
        ("a.2Fphoto", (), False),
        ("b", ("dog", "tv monitor"), False),
        ("gone", ("cat",), True),
    ]
    assert listing.unlisted == ("left.jpg", "left.png")


def test_collisions_are_resolved_whatever_the_order(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "in", "a.jpg", "a.png", "b.jpg")
    forward = list_images(root, tags=write_csv(tmp_path, "a.jpg,dog", "a.png,cat", "b.jpg,cow"))
    backward = list_images(root, tags=write_csv(tmp_path, "b.jpg,cow", "a.png,cat", "a.jpg,dog"))
    assert forward.items == backward.items
    assert [(item.image_id, item.tags) for item in forward.items] == [
        ("a.jpg", ("dog",)),
        ("a.png", ("cat",)),
        ("b", ("cow",)),
    ]


def test_unicode_names(tmp_path: Path) -> None:
    names = ["ünï 图.jpg", unicodedata.normalize("NFD", "ünï 图.jpg"), "emoji 🐕.jpg"]
    root = make_folder(tmp_path / "in", *names)
    listing = list_images(root, tags=write_csv(tmp_path, *(f"{name},dog" for name in names)))
    assert sorted(item.path for item in listing.items) == sorted(names)
    assert len({item.image_id for item in listing.items}) == 3
    assert all(item.size for item in listing.items)


def test_unknown_tags_are_collected_with_their_lines(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "in", *(f"{number}.jpg" for number in range(14)))
    lines = [f"{number}.jpg,{'dgo' if number < 3 else f'zzz{number}'}" for number in range(14)]
    tags = write_csv(tmp_path, *lines)
    with pytest.raises(ValueError, match="12 unknown tags:") as caught:
        list_images(root, tags=tags)
    text = str(caught.value)
    assert f"{tags}:2: tag 'dgo' is no class or alias of class set 'voc'. Near: dog. (2 more times)" in text
    assert text.count(f"{tags}:") == 10
    assert "and 2 more" in text
    assert "--unknown-tags drop" in text
    listing = list_images(root, tags=tags, unknown_tags="drop")
    assert listing.dropped_tags["dgo"] == 3
    with pytest.raises(ValueError, match=r"Near: dog[.] \(once more\)"):
        list_images(root, tags=write_csv(tmp_path, "0.jpg,dgo", "1.jpg,dgo"))
    assert sum(listing.dropped_tags.values()) == 14
    assert {item.tags for item in listing.items} == {()}


def test_truth_has_the_images_own_paths(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "in", "a/x.jpg", "y.jpg", "masks/a/x.png", "masks/z.png")
    listing = list_images(root, tags_for_all=("dog",), truth=str(root / "masks"))
    assert [(item.path, item.truth) for item in listing.items] == [
        ("a/x.jpg", TruthFile(path="a/x.png", size=len("masks/a/x.png"))),
        ("y.jpg", None),
    ], "masks below the images are not taken for images"
    assert listing.truths is not None
    assert listing.truths.read("a/x.png") == b"masks/a/x.png"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"truth PNG for none of the 4 images.* e.g. a/x.png"):
        list_images(root, tags_for_all=("dog",), truth=str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="would be taken for images"):
        list_images(root, tags_for_all=("dog",), truth=str(root))


def test_an_empty_or_missing_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match=rf"^no images below {tmp_path}/in\.$"):
        list_images(tmp_path / "in", tags_for_all=("dog",))
    with pytest.raises(ValueError, match=r"\(there is no such folder\)"):
        list_images(tmp_path / "none", tags_for_all=("dog",))
    make_folder(tmp_path / "in", "sub/a.jpg")
    with pytest.raises(ValueError, match=r"none of the 1 files .* the first is a.jpg .*There is sub/a.jpg: paths are"):
        list_images(tmp_path / "in", tags=write_csv(tmp_path, "a.jpg,dog"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"a folder needs tags: give --tags .*, or images in folders that are named by class \(aeroplane/1.jpg\)"),
        ({"tags": "t.csv", "tags_for_all": ("dog",)}, "give --tags or --tags-for-all, not both"),
    ],
)
def test_tags_come_from_one_place(tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list_images(make_folder(tmp_path / "in", "a.jpg"), **options)


def test_folders_named_by_class_are_tags(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "in", "Cat/1.jpg", "Cat/more/2.jpg", "dining_table/1.jpg", "masks/Cat/1.png")
    listing = list_images(root, truth=str(root / "masks"))
    assert [(item.path, item.tags) for item in listing.items] == [
        ("Cat/1.jpg", ("cat",)),
        ("Cat/more/2.jpg", ("cat",)),
        ("dining_table/1.jpg", ("dining table",)),
    ]
    assert listing.notes == ("tags from class folders: Cat, dining_table.",)


def test_a_folder_that_is_no_class_is_an_unknown_tag(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "in", "cat/1.jpg", "dgo/1.jpg")
    with pytest.raises(ValueError, match=r"class folder .*/in/dgo: tag 'dgo' is no class .* Near: dog"):
        list_images(root)
    assert [item.tags for item in list_images(root, unknown_tags="drop").items] == [("cat",), ()]
    make_folder(root, "loose.jpg")
    with pytest.raises(ValueError, match=r"images that are in no class folder: loose.jpg"):
        list_images(root)


def test_a_single_image_is_an_input(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "in", "a.JPG", "b.jpg", "folder.jpg/c.jpg")
    listing = list_images(root / "a.JPG", tags_for_all=("dog",))
    assert [(item.path, item.tags) for item in listing.items] == [("a.JPG", ("dog",))]
    table = write_csv(tmp_path, "b.jpg,cat", "a.JPG,cow")
    assert [item.tags for item in list_images(root / "a.JPG", tags=table).items] == [("cow",)]
    with pytest.raises(ValueError, match=r"tags.csv has no line for b.jpg, the image that --input names"):
        list_images(root / "b.jpg", tags=write_csv(tmp_path, "a.JPG,cow"))
    assert [item.path for item in list_images(root / "folder.jpg", tags_for_all=("dog",)).items] == ["c.jpg"]


def test_an_absent_file_comes_with_one_that_may_be_meant(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "in", "a.JPG", "sub/B.png", "x/deep.jpg", "notes.txt", "there.jpg")
    table = write_csv(
        tmp_path, *(f"{name},dog" for name in ("a.jpg", "sub/b.jpg", "deep.jpg", "notes.jpg", "there.jpg"))
    )
    similar = {item.path: item.similar for item in list_images(root, tags=table).items}
    assert similar == {
        "a.jpg": "a.JPG",
        "sub/b.jpg": "sub/B.png",
        "deep.jpg": "x/deep.jpg",
        "notes.jpg": None,
        "there.jpg": None,
    }


@pytest.mark.parametrize("line", ['a.jpg,"dog, tvmonitor"', '"a.jpg","dog,tv monitor"'])
def test_a_comma_between_tags_gets_a_hint(tmp_path: Path, line: str) -> None:
    root = make_folder(tmp_path / "in", "a.jpg")
    with pytest.raises(ValueError, match=r"Separate several tags by `;` or `\|`: dog;tv monitor\."):
        list_images(root, tags=write_csv(tmp_path, line))


def test_links(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "in", "a.jpg")
    make_folder(tmp_path / "out", "b.jpg")
    (root / "inside.jpg").symlink_to("a.jpg")
    (root / "outside.jpg").symlink_to(tmp_path / "out/b.jpg")
    (root / "broken.jpg").symlink_to("nowhere.jpg")
    (root / "more").symlink_to(tmp_path / "out")
    listing = list_images(root, tags_for_all=("dog",))
    assert {item.path: item.size is None for item in listing.items} == {
        "a.jpg": False,
        "inside.jpg": False,
        "outside.jpg": False,  # refused when it is read
        "broken.jpg": True,
    }
    assert listing.notes == ("1 links to folders were not entered: more.",)


def test_s3(s3: Any) -> None:
    storage = Storage(s3.uri("folder-source"), s3.config)
    for path in ("in/a 1.jpg", "in/sub/ü.png", "in/notes.txt"):
        storage.write(path, b"123")
    storage.write("tags.jsonl", '{"file": "sub/ü.png", "tags": ["dog"]}\n'.encode())
    options = {"storage": s3.config, "tags": s3.uri("folder-source/tags.jsonl")}
    listing = list_images(s3.uri("folder-source/in"), **options)
    assert [(item.image_id, item.size) for item in listing.items] == [("sub.2F.C3.BC", 3)]
    assert len(listing.unlisted) == 1
