"""Storage: the same promises on a local disk and on S3, held under concurrent writers and kills."""

import os
import pickle
import resource
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest

from wsss_ray.config import StorageConfig
from wsss_ray.storage.errors import StorageError
from wsss_ray.storage.storage import Storage

WRITERS = 8


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.processes)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return Storage(str(tmp_path / "root"))
    server = request.getfixturevalue("s3")
    return Storage(server.uri(uuid.uuid4().hex), server.config)


def test_files_are_written_listed_and_replaced(storage: Storage) -> None:
    assert storage.list() == {}
    storage.write("b.bin", b"\0\1")
    storage.write("deep/er/c.bin", b"ccc")
    storage.write("a.bin", b"")
    assert list(storage.list()) == ["a.bin", "b.bin"]
    assert [info.size for info in storage.list().values()] == [0, 2]
    assert list(storage.list("deep/er")) == ["c.bin"]
    assert storage.list("nowhere") == {}
    assert storage.read("b.bin") == b"\0\1"
    storage.write("b.bin", b"new")
    assert storage.read("b.bin") == b"new"
    assert storage.exists("a.bin")
    assert not storage.exists("z.bin")
    with pytest.raises(FileNotFoundError):
        storage.read("z.bin")


def test_a_file_is_removed_alone_and_once(storage: Storage) -> None:
    storage.write("deep/a.bin", b"a")
    storage.write("deep/b.bin", b"b")
    storage.remove("deep/a.bin")
    assert list(storage.list("deep")) == ["b.bin"]
    storage.remove("deep/a.bin")
    with pytest.raises(ValueError, match="not a plain path"):
        storage.remove("deep/../deep/b.bin")
    assert storage.read("deep/b.bin") == b"b"


def test_open_reads_at_random_places(storage: Storage) -> None:
    content = bytes(range(256)) * 1000
    storage.write("a.bin", content)
    with storage.open("a.bin") as file:
        file.seek(100_000)
        assert file.read(10) == content[100_000:100_010]
        file.seek(-5, os.SEEK_END)
        assert file.read() == content[-5:]


@pytest.mark.parametrize("megabytes", [0, 1, 102])  # s3fs sends more than 100 MB in parts
def test_a_file_written_in_pieces_appears_whole_or_not_at_all(storage: Storage, megabytes: int) -> None:
    piece = os.urandom(2**20)
    with storage.writing("deep/a.bin") as file:
        for _ in range(megabytes):
            file.write(piece)
        assert storage.list("deep") == {}
    assert storage.list("deep")["a.bin"].size == megabytes * 2**20
    assert storage.read("deep/a.bin") == piece * megabytes
    with pytest.raises(RuntimeError, match="midway"), storage.writing("deep/a.bin") as file:  # noqa: PT012
        file.write(b"half")
        raise RuntimeError("midway")
    assert storage.list("deep")["a.bin"].size == megabytes * 2**20


def test_a_full_disk_for_temporary_files_is_not_the_stores(s3: Any) -> None:
    """The kernel refuses files of this process above a size for a moment."""
    allowed = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with (  # noqa: PT012
            pytest.raises(StorageError, match=r"temporary files; TMPDIR .*the disk is full \(File too large\)"),
            Storage(s3.uri("full"), s3.config).writing("a.bin") as file,
        ):
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, allowed[1]))
            file.write(bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)


def test_folders_and_walk(storage: Storage) -> None:
    for path in ("x.bin", "one/a.bin", "one/two/ü 图.bin", ".hidden/b.bin", "one/.c.bin"):
        storage.write(path, b"1")
    assert storage.folders() == ("one",)
    assert storage.folders("one") == ("two",)
    assert storage.folders("nowhere") == ()
    assert list(storage.walk()) == ["one/a.bin", "one/two/ü 图.bin", "x.bin"]
    assert storage.child("one").read("two/ü 图.bin") == b"1"
    assert storage.child("nowhere").walk() == {}


def test_a_folder_of_a_hundred_thousand_files_is_listed_whole(tmp_path: Path) -> None:
    names = [f"{index:06d}.png" for index in range(100_000)]
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:  # not kept for later sessions, as tmp_path is
        for name in names:
            os.close(os.open(f"{folder}/{name}", os.O_CREAT))
        found = Storage(folder).list()
    assert list(found) == names
    assert {info.size for info in found.values()} == {0}


def test_links_are_listed_and_linked_folders_are_not_entered(tmp_path: Path) -> None:
    (tmp_path / "root/real").mkdir(parents=True)
    (tmp_path / "root/real/a.bin").write_bytes(b"abc")
    (tmp_path / "root/link.bin").symlink_to("real/a.bin")
    (tmp_path / "root/broken.bin").symlink_to("nowhere")
    (tmp_path / "root/circle").symlink_to(".")
    (tmp_path / "root/loop.bin").symlink_to("loop.bin")
    storage = Storage(str(tmp_path / "root"))
    skipped: dict[str, str] = {}
    assert list(storage.list()) == ["link.bin"]
    assert storage.list()["link.bin"].size == 3
    assert list(storage.walk(on_skipped=skipped.__setitem__)) == ["link.bin", "real/a.bin"]
    assert skipped == {"broken.bin": "broken link", "circle": "linked folder", "loop.bin": "broken link"}
    assert storage.folders() == ("circle", "real")


def test_a_bucket_knows_what_a_browser_must_know(s3: Any) -> None:
    storage = Storage(s3.uri(uuid.uuid4().hex), s3.config)
    types = {"a.html": "text/html", "a.css": "text/css", "a.js": "text/javascript", "a.jpg": "image/jpeg"}
    for name in (*types, "a.unknown"):
        storage.write(name, b"x")
    client = boto3.client("s3", endpoint_url=s3.endpoint_url)
    prefix = storage.uri.removeprefix(f"s3://{s3.bucket}/")
    heads = {name: client.head_object(Bucket=s3.bucket, Key=f"{prefix}/{name}") for name in (*types, "a.unknown")}
    assert {name: heads[name]["ContentType"] for name in types} == types
    assert heads["a.unknown"]["ContentType"] == "binary/octet-stream"


@pytest.mark.parametrize("path", ["../a", "a/../../b", "/a", "a//b", "./a", "a/", "a\0b"])
def test_paths_stay_below_the_root(storage: Storage, path: str) -> None:
    for call in (storage.read, storage.exists, lambda path: storage.write(path, b"")):
        with pytest.raises(ValueError, match="not a plain path"):
            call(path)


def test_a_storage_can_be_pickled(storage: Storage) -> None:
    storage.write("a.bin", b"1")
    copy = pickle.loads(pickle.dumps(storage))
    assert copy.read("a.bin") == b"1"
    assert copy.uri == storage.uri


def test_unknown_schemes_are_refused() -> None:
    with pytest.raises(ValueError, match="nosuch://"):
        Storage("nosuch://bucket/path")
    with pytest.raises(ValueError, match="empty path"):
        Storage("")


def test_a_missing_bucket_is_named(s3: Any) -> None:
    storage = Storage("s3://no-such-bucket/prefix", s3.config)
    with pytest.raises(StorageError, match="no-such-bucket/prefix/a: the bucket does not exist"):
        storage.write("a", b"")


def test_the_endpoint_may_come_from_the_environment(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint_url)
    storage = Storage(s3.uri("environment"), StorageConfig())
    storage.write("a", b"1")
    assert Storage(s3.uri("environment"), s3.config).read("a") == b"1"


def test_errors_of_the_disk_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(StorageError, match=f"{tmp_path}/a: "):
        Storage(str(tmp_path)).read("a")


def test_create_has_one_winner(storage: Storage) -> None:
    barrier = threading.Barrier(WRITERS)

    def create(number: int) -> bool:
        barrier.wait()
        return storage.create("claim.json", bytes([number]) * 1000)

    with ThreadPoolExecutor(WRITERS) as pool:
        won = list(pool.map(create, range(WRITERS)))
    assert sum(won) == 1
    assert storage.read("claim.json") == bytes([won.index(True)]) * 1000
    assert list(storage.list()) == ["claim.json"]


def test_replace_has_one_winner_and_needs_the_version(storage: Storage) -> None:
    storage.write("row.bin", b"old")
    info = storage.info("row.bin")
    assert info is not None
    barrier = threading.Barrier(WRITERS)

    def replace(number: int) -> bool:
        barrier.wait()
        return storage.replace("row.bin", bytes([number]), info.version)

    with ThreadPoolExecutor(WRITERS) as pool:
        won = list(pool.map(replace, range(WRITERS)))
    assert sum(won) == 1
    assert storage.read("row.bin") == bytes([won.index(True)])
    assert not storage.replace("row.bin", b"late", info.version)
    assert not storage.replace("gone.bin", b"late", info.version)
    assert not storage.exists("gone.bin")
    assert list(storage.list()) == ["row.bin"]


_COUNT_UP = """
import pickle, sys
storage, done = pickle.load(sys.stdin.buffer), 0
while done < 10:
    info = storage.info("count")
    number = int(storage.read("count"))
    done += storage.replace("count", str(number + 1).encode(), info.version)
"""


def test_no_replacement_of_another_process_is_lost(storage: Storage) -> None:
    """Three processes add one to a number in a file, ten times each, by compare-and-replace."""
    storage.write("count", b"100")
    children = [subprocess.Popen([sys.executable, "-c", _COUNT_UP], stdin=subprocess.PIPE) for _ in range(3)]
    for child in children:
        assert child.stdin is not None
        child.stdin.write(pickle.dumps(storage))
        child.stdin.close()
    assert [child.wait(timeout=60) for child in children] == [0, 0, 0]
    assert storage.read("count") == b"130"


def test_readers_never_see_half_a_file(storage: Storage) -> None:
    contents = [bytes([number]) * 300_000 for number in range(4)]
    storage.write("a.bin", contents[0])
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for content in contents:
                storage.write("a.bin", content)

    def read() -> int:
        seen = 0
        for _ in range(40):
            assert storage.read("a.bin") in contents
            seen += 1
        return seen

    with ThreadPoolExecutor(3) as pool:
        writer = pool.submit(write)
        try:
            readers = [pool.submit(read) for _ in range(2)]
            assert [reader.result() for reader in readers] == [40, 40]
        finally:
            stop.set()
        writer.result()


@pytest.mark.parametrize(
    "call", ["storage.write('a.bin', data)", "storage.replace('a.bin', data, storage.info('a.bin').version)"]
)
def test_a_kill_leaves_a_whole_file(tmp_path: Path, call: str) -> None:
    program = f"""
import itertools, sys
from wsss_ray.storage.storage import Storage
storage = Storage(sys.argv[1])
for number in itertools.cycle(range(256)):
    data = bytes([number]) * 4_000_000
    {call}
    print(number, flush=True)
"""
    storage = Storage(str(tmp_path))
    storage.write("a.bin", bytes([255]) * 4_000_000)
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(0.05)
    child.kill()
    child.wait()
    content = storage.read("a.bin")
    assert len(content) == 4_000_000
    assert set(content) == {content[0]}
    assert list(storage.list()) == ["a.bin"]


@pytest.mark.parametrize(
    "attempt",
    [
        lambda storage: storage.create("a.bin", b"2"),
        lambda storage: storage.replace("a.bin", b"2", "another version"),
    ],
)
def test_what_lost_leaves_nothing_behind(tmp_path: Path, attempt: Callable[[Storage], bool]) -> None:
    storage = Storage(str(tmp_path))
    storage.write("a.bin", b"1")
    assert not attempt(storage)
    assert os.listdir(tmp_path) == ["a.bin"]  # noqa: PTH208
    assert storage.read("a.bin") == b"1"


_STOP_MIDWAY = """
import sys, time
from wsss_ray.storage.storage import Storage
with Storage(sys.argv[1]).writing("a.bin") as file:
    file.write(b"half")
    print("midway", flush=True)
    time.sleep(600)
"""


def test_a_sweep_removes_what_killed_writers_left_and_nothing_else(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write("b.bin", b"1")
    below = tmp_path / "data" / "pages" / f".index.js.{'0' * 32}.tmp"
    below.parent.mkdir(parents=True)
    below.write_bytes(b"half")
    (tmp_path / ".other.tmp").write_bytes(b"another program's")
    (tmp_path / ".hidden").write_bytes(b"another program's")
    command = [sys.executable, "-c", _STOP_MIDWAY, str(tmp_path)]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"midway\n"
        assert len(list(tmp_path.glob(".a.bin.*"))) == 2
        writers[0].kill()
        writers[0].wait()
        storage.sweep()
        assert len(list(tmp_path.glob(".a.bin.*"))) == 1, "the other is still being written"
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    storage.sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", ".other.tmp", "b.bin", "data"]
    assert not below.exists()
    storage.sweep("nowhere")


def test_an_address_of_a_file_has_no_host() -> None:
    with pytest.raises(ValueError, match=r"file://localhost/tmp: .* begins with file:///, without a host"):
        Storage("file://localhost/tmp")
