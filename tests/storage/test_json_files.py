"""JSON files with a digest: what was written comes back, or an error names the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wsss_ray.storage.json_files import decode_json, encode_json, read_json
from wsss_ray.storage.storage import Storage

CONTENT = {"threshold": 0.35, "names": ["cat", "dög"], "counts": {"10": 1, "9": 2}, "none": None}


def test_content_comes_back(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write("run.json", encode_json(CONTENT))
    assert read_json(storage, "run.json") == CONTENT
    assert decode_json(encode_json({"ids": (1, 2), "by_id": {10: "a", 9: "b"}}), "x") == {
        "ids": [1, 2],
        "by_id": {"10": "a", "9": "b"},
    }


def test_names_are_readable_and_none_is_refused() -> None:
    names = ["dög", "猫", "caf\udce9"]  # the last one is a file name that is not UTF-8
    data = encode_json({"names": names})
    assert "dög" in data.decode()
    assert "猫" in data.decode()
    assert decode_json(data, "x") == {"names": names}


def test_a_file_without_a_digest_is_read() -> None:
    assert decode_json(json.dumps(CONTENT).encode(), "run.json") == CONTENT


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"[1]",
        json.dumps(CONTENT).encode("utf-16"),
        encode_json(CONTENT).replace(b"0.35", b"0.34"),
        encode_json(CONTENT).replace(b'"cat"', b'"bat"'),
        encode_json(CONTENT).replace(b"null", b"true"),
        encode_json(CONTENT).replace(b"sha256", b"sha257"),
    ],
    ids=["empty", "cut", "nested", "list", "utf-16", "number", "text", "null", "key"],
)
def test_damage_names_the_file(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^run\.json is damaged"):
        decode_json(data, "run.json")
