"""Storage before an S3 server that is busy, breaks off, goes away or says no."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from faulty_s3 import Faults, FaultyS3, faulty
from local_s3 import S3Server

from wsss_ray.config import StorageConfig
from wsss_ray.storage import retries
from wsss_ray.storage.errors import StorageError, explained
from wsss_ray.storage.storage import Storage


@pytest.fixture(scope="module")
def one_proxy(s3: S3Server) -> Iterator[FaultyS3]:
    with faulty(s3) as proxy:
        yield proxy


@pytest.fixture
def proxy(one_proxy: FaultyS3) -> FaultyS3:
    """The proxy without faults, with nothing counted."""
    one_proxy.faults = Faults()
    one_proxy.requests.clear()
    one_proxy.happened.clear()
    return one_proxy


def fresh(proxy: FaultyS3, **fields: int) -> Storage:
    return Storage(proxy.uri(uuid.uuid4().hex), replace(proxy.config, **fields))


def test_nothing_is_lost_over_a_store_that_fails_a_third_of_the_time(proxy: FaultyS3) -> None:
    storage = fresh(proxy)
    before = retries.counted()
    proxy.faults = Faults(refuse=0.2, drop=0.05, lose=0.05, cut=0.05)
    contents = {f"{i:03d}.bin": os.urandom(2000 + i) for i in range(40)}

    def work(name: str) -> tuple[bytes, bytes, bool]:
        storage.write(name, contents[name])
        made = storage.create(f"claims/{name}", b"mine")
        with storage.open(name) as file:
            file.seek(1000)
            part = file.read()
        info = storage.info(name)
        assert info is not None
        assert storage.replace(name, contents[name], info.version)
        return storage.read(name), part, made

    with ThreadPoolExecutor(8) as pool:
        results = dict(zip(contents, pool.map(work, contents), strict=True))
    assert list(storage.list()) == list(contents)
    for name, (whole, part, made) in results.items():
        assert whole == contents[name]
        assert part == contents[name][1000:]
        assert made, "a claim whose answer was lost was taken for another's"
    counts = retries.counted() - before
    assert counts["SlowDown"] + counts["HTTP 503"] == proxy.happened["refuse"] > 20
    assert counts["ConnectionClosedError"] > 0
    assert counts["ClientPayloadError"] > 0
    # aiohttp itself sends once more what met a connection that had been open and was closed
    assert counts.total() <= proxy.happened.total()


def test_a_store_that_goes_away_and_comes_back_is_waited_for(proxy: FaultyS3) -> None:
    storage = fresh(proxy)
    storage.write("a", b"1")
    before = retries.counted()
    proxy.go_away()
    threading.Timer(2, proxy.come_back).start()
    assert storage.read("a") == b"1"
    storage.write("b", b"2")
    assert list(storage.list()) == ["a", "b"]
    assert (retries.counted() - before)["EndpointConnectionError"] >= 2


def test_the_limit_holds_and_is_told(proxy: FaultyS3) -> None:
    storage = fresh(proxy, retries=2)
    proxy.faults = Faults(refuse=1.0)
    with pytest.raises(StorageError, match=r"/a: the store kept refusing \(SlowDown\).*Run the same command again"):
        storage.write("a", b"")
    assert proxy.requests["PUT"] == 3
    proxy.go_away()
    with pytest.raises(StorageError, match=r"/a: the store cannot be reached \(EndpointConnectionError\)"):
        storage.read("a")
    proxy.come_back()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ((404, "NoSuchBucket", ""), "the bucket does not exist; check its name"),
        ((403, "AccessDenied", ""), "access denied. Check that the credentials"),
        ((400, "ExpiredToken", ""), "the session token has expired. Get a new one"),
        ((403, "InvalidAccessKeyId", ""), "does not accept the credentials"),
        ((403, "SignatureDoesNotMatch", ""), "does not accept the credentials"),
        ((403, "RequestTimeTooSkewed", ""), "clock is wrong"),
        (
            (400, "AuthorizationHeaderMalformed", "<Region>eu-west-3</Region>"),
            r"another region \(eu-west-3\). Give --storage.region",
        ),
    ],
)
def test_what_does_not_pass_is_told_at_once(proxy: FaultyS3, error: tuple[int, str, str], text: str) -> None:
    storage = fresh(proxy)
    before = retries.counted()
    calls: list[Callable[[], object]] = [lambda: storage.write("a", b""), lambda: storage.exists("a"), storage.list]
    for call in calls:
        proxy.requests.clear()
        proxy.faults = Faults(error=error)
        with pytest.raises(StorageError, match=text):
            call()
        assert proxy.requests.total() <= 4, "HEAD, its own listing, the one that asks for the reason, a hop of region"
    assert retries.counted() == before


def test_a_store_without_conditions_is_used_all_the_same(proxy: FaultyS3, caplog: pytest.LogCaptureFixture) -> None:
    storage = fresh(proxy)
    proxy.faults = Faults(no_conditions=True)
    assert storage.create("a", b"1")
    assert not storage.create("a", b"2")
    info = storage.info("a")
    assert info is not None
    assert storage.replace("a", b"3", info.version)
    assert not storage.replace("a", b"4", info.version)
    assert storage.read("a") == b"3"
    assert "no conditional writes" in caplog.text


def test_a_long_listing_comes_in_pages_each_of_which_may_fail(s3: S3Server, proxy: FaultyS3) -> None:
    quiet = Storage(s3.uri(uuid.uuid4().hex), s3.config)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: quiet.write(f"labels/{i:04d}.parquet", b""), range(1050)))
    proxy.faults = Faults(refuse=0.4)
    names = list(Storage(quiet.uri, proxy.config).list("labels"))
    assert names == [f"{i:04d}.parquet" for i in range(1050)]
    assert proxy.requests["GET"] - proxy.happened["refuse"] == 2


def test_no_secret_is_told(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://planted-user:planted-secret@127.0.0.1:9")
    storage = Storage(s3.uri("a"), StorageConfig(retries=0))
    with pytest.raises((StorageError, ValueError)) as caught:
        storage.read("a")
    assert "planted" not in str(caught.value)


def test_no_key_of_the_environment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted/planted/planted")
    error = explained(OSError("refused: planted/planted/planted, AKIAIOSFODNN7PLANTED"), "s3://bucket/a")
    assert str(error) == "s3://bucket/a: refused: ***, ***"


_READ = """
import sys
from wsss_ray.config import StorageConfig
from wsss_ray.storage.storage import Storage, StorageError
try:
    print(Storage(sys.argv[1], StorageConfig(region="us-east-1")).read("a"))
except StorageError as error:
    print(error)
"""


def read_elsewhere(uri: str, **environment: str) -> str:
    """What a process without any credentials of its own prints when it reads a file."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment = {**clean, "AWS_EC2_METADATA_DISABLED": "true", "HOME": "/nonexistent", **environment}
    done = subprocess.run(
        [sys.executable, "-c", _READ, uri], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout


def test_a_role_gives_the_keys_and_without_any_the_text_says_so(s3: S3Server) -> None:
    Storage(s3.uri("role"), s3.config).write("a", b"content")
    asked: list[str] = []

    class Role(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            keys = {"AccessKeyId": "ROLE", "SecretAccessKey": "s", "Token": "t", "Expiration": "2999-01-01T00:00:00Z"}
            body = json.dumps(keys).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Silent."""

    with HTTPServer(("127.0.0.1", 0), Role) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        text = read_elsewhere(
            s3.uri("role"),
            AWS_ENDPOINT_URL=s3.endpoint_url,
            AWS_CONTAINER_CREDENTIALS_FULL_URI=f"http://127.0.0.1:{server.server_address[1]}/keys",
        )
        server.shutdown()
    assert text == "b'content'\n"
    assert asked == ["/keys"]
    assert "no credentials were found. Set AWS_ACCESS_KEY_ID" in read_elsewhere(
        s3.uri("role"), AWS_ENDPOINT_URL=s3.endpoint_url
    )


def test_counts_travel_from_workers_to_the_driver_once() -> None:
    before = retries.counted()
    retries.take()
    retries.note("SlowDown", "test", 1)
    retries.note("SlowDown", "test", 1)
    assert retries.take() == {"SlowDown": 2}
    assert retries.take() == {}
    retries.add({"ReadTimeoutError": 3})
    counts = retries.counted() - before
    assert retries.describe(counts) == "5 requests were repeated (3 x ReadTimeoutError, 2 x SlowDown)"


def test_pauses_grow_vary_and_have_a_limit() -> None:
    pauses = [[retries.pause(attempt) for _ in range(50)] for attempt in range(1, 13)]
    assert all(len(set(row)) > 25 for row in pauses)
    assert all(0.1 * 2**i <= pause <= 0.2 * 2**i for i, row in enumerate(pauses[:7]) for pause in row)
    assert all(10 <= pause <= 20 for row in pauses[8:] for pause in row)
    assert sum(min(row) for row in pauses[:9]) > 20, "a store that is away for 20 s is waited for, come what may"
