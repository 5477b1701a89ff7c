"""Paths of a list stay inside the root; ids are plain, distinct and a function of the set of paths."""

import itertools
import os
import random
from pathlib import Path

import pytest

from wsss_ray.datasets.paths import Files, UnreadableError, image_ids, leaves_root, plain_path, read_inside
from wsss_ray.shards.row_checks import check_image_id
from wsss_ray.storage.errors import StorageError
from wsss_ray.storage.storage import Storage


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


@pytest.mark.parametrize(("text", "path"), [("a.jpg", "a.jpg"), ("./b//a.jpg", "b/a.jpg"), ("ä 1/ü.jpg", "ä 1/ü.jpg")])
def test_plain_paths(text: str, path: str) -> None:
    assert plain_path(text, "list:1") == path


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("/etc/passwd", "absolute"),
        ("../a.jpg", "`..`"),
        ("a/../../b.jpg", "`..`"),
        ("a/../b.jpg", "`..`"),
        ("..\\a.jpg", "`..`"),
        ("C:\\a.jpg", "absolute"),
        ("\\\\host\\a.jpg", "absolute"),
        ("s3://bucket/a.jpg", "URI"),
        ("file:///etc/passwd", "URI"),
        ("", "empty"),
        (".", "names no file"),
        ("a\0.jpg", "NUL"),
        ("a\ud800.jpg", "not Unicode"),
    ],
)
def test_paths_that_leave_the_root_are_refused_with_their_line(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"^list.csv:7: .*{reason}"):
        plain_path(text, "list.csv:7")


def test_links_out_of_the_root_are_not_read(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (root / "inside.jpg").write_bytes(b"abc")
    (root / "link.jpg").symlink_to("inside.jpg")
    (root / "out.jpg").symlink_to("../secret.jpg")
    (root / "outside").symlink_to(tmp_path)
    storage = Storage(str(root))
    assert read_inside(storage, "link.jpg", size=3, max_bytes=10) == b"abc"
    for path in ("out.jpg", "outside/secret.jpg"):
        assert leaves_root(storage, path)
        with pytest.raises(UnreadableError, match="outside the input"):
            read_inside(storage, path, size=6, max_bytes=10)


def test_a_root_that_is_a_link_is_the_root(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a.jpg").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("real")
    assert read_inside(Storage(str(tmp_path / "link")), "a.jpg", size=3, max_bytes=10) == b"abc"


def test_what_cannot_be_read_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "big.jpg").write_bytes(b"x" * 11)
    storage = Storage(str(tmp_path))
    for path, size, reason in (
        ("gone.jpg", None, "absent: no such file"),
        ("folder.jpg", 1, "not a file"),
        ("pipe.jpg", 0, "not a file"),
        ("loop.jpg", 1, "unreadable: "),
        ("big.jpg", 11, "too large: 11 bytes, the limit is 10"),
    ):
        with pytest.raises(UnreadableError, match=reason):
            read_inside(storage, path, size=size, max_bytes=10)


def test_a_file_that_changed_since_it_was_listed_stops_the_job(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"abc")
    storage = Storage(str(tmp_path))
    with pytest.raises(StorageError, match="has 3 bytes, and had 2"):
        read_inside(storage, "a.jpg", size=2, max_bytes=10)
    with pytest.raises(StorageError, match=r"gone.jpg was listed .* every node sees"):
        read_inside(storage, "gone.jpg", size=2, max_bytes=10)


def test_sizes_are_found_by_listing_folders(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one/a.jpg").write_bytes(b"abc")
    (tmp_path / "one/.b.jpg").write_bytes(b"ab")
    (tmp_path / "link").symlink_to("one")
    files = Files(Storage(str(tmp_path)))
    sizes = {path: files.size(path) for path in ("one/a.jpg", "link/a.jpg", "one/.b.jpg", "one/c.jpg", "no/a.jpg")}
    assert sizes == {"one/a.jpg": 3, "link/a.jpg": 3, "one/.b.jpg": 2, "one/c.jpg": None, "no/a.jpg": None}
