"""Tag files: what is read, and what is refused with its line."""

from pathlib import Path

import pytest

from wsss_ray.config import StorageConfig
from wsss_ray.datasets.manifest import ManifestEntry, read_manifest


def read(tmp_path: Path, name: str, content: str | bytes) -> list[ManifestEntry]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_manifest(str(path), StorageConfig())


def tags_by_path(entries: list[ManifestEntry]) -> dict[str, tuple[str, ...]]:
    return {entry.path: entry.tags for entry in entries}


def test_csv(tmp_path: Path) -> None:
    content = (
        "\ufefftags, File ,note\r\n"
        "dog;person,pets/a.jpg,\r\n"
        " cat | dog ,./b.jpg,x\r\n"
        "\r\n"
        ',"with, comma.jpg",\r\n'
        'dog,"line\nbreak.jpg",\r\n'
        "dog,ünï 图.jpg,\r\n"
    )
    entries = read(tmp_path, "tags.csv", content)
    assert tags_by_path(entries) == {
        "pets/a.jpg": ("dog", "person"),
        "b.jpg": ("cat", "dog"),
        "with, comma.jpg": (),
        "line\nbreak.jpg": ("dog",),
        "ünï 图.jpg": ("dog",),
    }
    assert entries[0].where == f"{tmp_path}/tags.csv:2"


def test_json_lines(tmp_path: Path) -> None:
    content = '{"file": "a.jpg", "tags": ["dog", "person"], "note": 1}\n\n{"file": "b.jpg", "tags": []}\n'
    assert tags_by_path(read(tmp_path, "tags.jsonl", content)) == {"a.jpg": ("dog", "person"), "b.jpg": ()}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "", r"t.csv:1: the header must be `file,tags`"),
        ("t.csv", "file;tags\na.jpg;dog\n", r"t.csv:1: the header must be `file,tags`"),
        ("t.csv", "file,tags,file\n", r"t.csv:1: the header"),
        ("t.csv", "file,tags\n", r"lists no image"),
        ("t.csv", "file,tags\na.jpg,dog,cat\n", r"t.csv:2: 3 fields, the header has 2"),
        ("t.csv", "file,tags\na.jpg,dog\n../b.jpg,cat\n", r"t.csv:3: '../b.jpg' has a `..`"),
        ("t.csv", "file,tags\n/etc/passwd,cat\n", r"t.csv:2: '/etc/passwd' is an absolute path"),
        ("t.csv", 'file,tags\n"a.jpg,dog\n', r"t.csv:2: not valid CSV"),
        ("t.csv", b"file,tags\na.jpg,dog\nb\xff.jpg,dog\n", r"t.csv:3: not UTF-8 text"),
        ("t.jsonl", '{"file": "a.jpg", "tags": ["dog"]}\n{"file": \n', r"t.jsonl:2: not valid JSON"),
        ("t.jsonl", "[" * 100_000, r"t.jsonl:1: not valid JSON"),
        ("t.jsonl", '["a.jpg"]', r"t.jsonl:1: not of the form"),
        ("t.jsonl", '{"file": "a.jpg", "tags": "dog"}', r't.jsonl:1: "tags" must be a list of strings'),
        ("t.jsonl", '{"file": "a.jpg"}', r't.jsonl:1: "tags" must be a list'),
        ("t.jsonl", '{"file": "a/../../b.jpg", "tags": []}', r"t.jsonl:1: .* has a `..`"),
        ("t.txt", "a.jpg dog", r"a tag file is a .csv"),
    ],
)
def test_what_is_malformed_is_refused_with_its_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, name, content)


def test_files_listed_twice_are_named_with_both_lines(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"  a.jpg: .*t.csv:2 and .*t.csv:4\n  b.jpg: .*t.csv:3 and .*t.csv:5$"):
        read(tmp_path, "t.csv", "file,tags\na.jpg,dog\nb.jpg,cat\n./a.jpg,cat\nb.jpg,cat\n")


def test_a_missing_tag_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"there is no tag file at {tmp_path}/none.csv"):
        read_manifest(f"{tmp_path}/none.csv", StorageConfig())
