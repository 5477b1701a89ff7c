"""Weights by URI: one whole copy on a node, whoever asks, however often it is killed."""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_s3 import Faults, FaultyS3, faulty
from local_s3 import S3Server

from wsss_ray.config import StorageConfig
from wsss_ray.storage.errors import StorageError
from wsss_ray.storage.storage import Storage
from wsss_ray.storage.weights import fetch_directory, fetch_file, file_digest

CONTENT = os.urandom(9_000_000)


@pytest.fixture
def proxy(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """A store that counts requests, and an empty cache."""
    monkeypatch.setenv("WSSS_RAY_CACHE", str(tmp_path))
    with faulty(s3) as proxy:
        yield proxy


def upload(s3: S3Server, proxy: FaultyS3) -> str:
    """URI of 9 MB."""
    folder = uuid.uuid4().hex
    Storage(s3.uri(folder), s3.config).write("sam.pth", CONTENT)
    return proxy.uri(f"{folder}/sam.pth")


_FETCH = """
import sys
from wsss_ray.config import StorageConfig
from wsss_ray.storage.weights import fetch_file
print("begun", flush=True)
print(fetch_file(sys.argv[1], sha256=None, config=StorageConfig(endpoint_url=sys.argv[2])))
"""


def start_fetch(uri: str, proxy: FaultyS3) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", _FETCH, uri, proxy.endpoint_url], stdout=subprocess.PIPE, text=True)


def test_processes_that_ask_at_once_share_one_download(s3: S3Server, proxy: FaultyS3, tmp_path: Path) -> None:
    uri = upload(s3, proxy)
    proxy.faults = Faults(cut=0.5, only="GET")
    children = [start_fetch(uri, proxy) for _ in range(2)]
    paths = {child.communicate(timeout=100)[0].split()[1] for child in children}
    assert [child.returncode for child in children] == [0, 0]
    assert len(paths) == 1
    path = Path(paths.pop())
    assert path.read_bytes() == CONTENT
    assert proxy.requests["GET"] - proxy.happened["cut"] == 2, "9 MB in pieces of 4 MiB and 1 ahead, once"
    assert not list(path.parent.glob(".*.part"))


def test_a_copy_that_is_damaged_or_half_there_is_fetched_again(
    s3: S3Server, proxy: FaultyS3, caplog: pytest.LogCaptureFixture
) -> None:
    uri = upload(s3, proxy)
    path = fetch_file(uri, sha256=None, config=proxy.config)
    gets = proxy.requests["GET"]
    assert fetch_file(uri, sha256=None, config=proxy.config) == path
    assert proxy.requests["GET"] == gets
    path.write_bytes(CONTENT[:1000])
    assert fetch_file(uri, sha256=None, config=proxy.config).read_bytes() == CONTENT
    assert "is not what was fetched" in caplog.text
    assert file_digest(path) == hashlib.sha256(CONTENT).hexdigest()


def test_a_killed_download_leaves_nothing_that_counts(s3: S3Server, proxy: FaultyS3, tmp_path: Path) -> None:
    uri = upload(s3, proxy)
    child = start_fetch(uri, proxy)
    assert child.stdout is not None
    child.stdout.readline()
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("*.part")) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    child.kill()
    child.wait()
    assert fetch_file(uri, sha256=None, config=proxy.config).read_bytes() == CONTENT


def test_a_wrong_digest_is_refused_and_leaves_no_copy(s3: S3Server, proxy: FaultyS3, tmp_path: Path) -> None:
    uri = upload(s3, proxy)
    with pytest.raises(ValueError, match="another file, or a damaged one"):
        fetch_file(uri, sha256="ab" * 32, config=proxy.config)
    assert not [path for path in tmp_path.rglob("sam.pth*") if path.is_file()]
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert fetch_file(uri, sha256=digest, config=proxy.config).read_bytes() == CONTENT


def test_a_directory_is_fetched_whole_and_a_changed_one_again(s3: S3Server, proxy: FaultyS3) -> None:
    folder = uuid.uuid4().hex
    store = Storage(s3.uri(folder), s3.config)
    store.write("config.json", b"{}")
    store.write("model.safetensors", b"one")
    store.write("readme.md", b"not a model file")
    first = fetch_directory(proxy.uri(folder), config=proxy.config)
    assert {path.name: path.read_bytes() for path in first.glob("[!.]*")} == {
        "config.json": b"{}",
        "model.safetensors": b"one",
    }
    store.write("model.safetensors", b"two")
    second = fetch_directory(proxy.uri(folder), config=proxy.config)
    assert (second / "model.safetensors").read_bytes() == b"two"
    assert (first / "model.safetensors").read_bytes() == b"one"
    with pytest.raises(StorageError, match="holds no checkpoint"):
        fetch_directory(proxy.uri("nowhere"), config=proxy.config)


def test_the_web_needs_a_digest() -> None:
    with pytest.raises(ValueError, match="need `sha256`"):
        fetch_file("https://example.invalid/a.pth", sha256=None, config=StorageConfig())


def test_a_full_disk_names_the_cache_and_what_to_do(s3: S3Server, proxy: FaultyS3, tmp_path: Path) -> None:
    uri = upload(s3, proxy)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, before[1]))
    try:
        with pytest.raises(StorageError) as caught:
            fetch_file(uri, sha256=None, config=proxy.config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(caught.value).startswith(f"{tmp_path}: File too large. ")
    assert "let WSSS_RAY_CACHE name a folder on another disk" in str(caught.value)
    assert not list(tmp_path.rglob("*.part"))
    assert fetch_file(uri, sha256=None, config=proxy.config).read_bytes() == CONTENT


def test_a_digest_that_cannot_be_kept_names_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "sam.pth"
    weights.write_bytes(b"weights")
    monkeypatch.setenv("WSSS_RAY_CACHE", f"{weights}/cache")
    with pytest.raises(StorageError, match=r"sam\.pth/cache: Not a directory\. .*WSSS_RAY_CACHE"):
        file_digest(weights)


def test_a_local_file_that_is_missing_is_no_fault_of_the_cache(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        file_digest(tmp_path / "sam.pth")
