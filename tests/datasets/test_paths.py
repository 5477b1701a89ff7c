"""Paths of a list stay inside the root."""

import os
from pathlib import Path

import pytest

from wsss_ray.datasets.files import Files
from wsss_ray.datasets.paths import UnreadableError, leaves_root, plain_path, read_inside
from wsss_ray.storage.errors import StorageError
from wsss_ray.storage.storage import Storage


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
