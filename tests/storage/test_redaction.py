"""Messages hold no secret; addresses with passwords are refused before anything is accessed."""

from __future__ import annotations

import http.server
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsss_ray.addresses import refuse_credentials, shown
from wsss_ray.config import StorageConfig
from wsss_ray.engine import logs
from wsss_ray.storage.errors import StorageError
from wsss_ray.storage.redaction import masked
from wsss_ray.storage.storage import Storage
from wsss_ray.storage.weights import fetch_file, weights_digest

SIGNED = "https://bucket.s3.amazonaws.com/sam.pth?X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F2026&X-Amz-Signature=f00dcafe"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cannot read s3://KEY:hidden@bucket/a", "cannot read s3://***@bucket/a"),
        ("GET https://user:hidden@host/x failed", "GET https://***@host/x failed"),
        ("GET https://hidden@host/x", "GET https://***@host/x"),
        ("cannot read s3://KEY:hid/den@bucket/a", "cannot read s3://***@bucket/a"),
        ("http://host:9000/a@b stays", "http://host:9000/a@b stays"),
        (f"{SIGNED}: 403", "https://bucket.s3.amazonaws.com/sam.pth?***: 403"),
        ("'https://h/p?token=hidden' and more", "'https://h/p?***' and more"),
        ("X-Amz-Security-Token=hidden&x=1", "X-Amz-Security-Token=***&x=1"),
        ("key AKIAIOSFODNN7EXAMPLE denied", "key *** denied"),
        ("key ASIAIOSFODNN7EXAMPLE denied", "key *** denied"),
        ("s3://bucket/a@b.jpg stays", "s3://bucket/a@b.jpg stays"),
        ("mail me@here.org about /data/?x", "mail me@here.org about /data/?x"),
        ("is it s3://bucket/photo?", "is it s3://bucket/photo?"),
    ],
)
def test_texts(text: str, expected: str) -> None:
    assert masked(text) == expected


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "X_API_KEY"])
def test_secrets_of_the_environment(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, SECRET)
    assert masked(f"the store said {SECRET}!") == "the store said ***!"


def test_words_of_the_environment_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/home/somebody/auth_token")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/identity_token")
    text = "testing /home/somebody/auth_token /var/run/identity_token"
    assert masked(text) == text


ADDRESSES = [
    "s3://KEY:hidden@bucket/a",
    "https://user:hidden@host/sam.pth",
    "gs://hidden@bucket",
    "s3://K:hid/den@b/a",
    "http://user:it's hidden@127.0.0.1:9/in",
    "http://user:it'shidden@127.0.0.1:9/in",
    "http://user:p@hidden@host",
    "http://user:hid/hidden@host/in",
    "s3://KEY:7/abchidden@bucket/in",
    "s3://KEY:hidden",
    "http://[hidden@host/in",
    "simplecache::s3://KEY:hidden@bucket/in",
]


@pytest.mark.parametrize("uri", ADDRESSES)
def test_addresses_with_credentials_are_refused(uri: str) -> None:
    for use in (
        refuse_credentials,
        Storage,
        lambda u: weights_digest(u, sha256="0" * 64, config=StorageConfig()),
        lambda u: StorageConfig(endpoint_url=u),
        lambda u: fetch_file(u, sha256="0" * 64, config=StorageConfig()),
    ):
        with pytest.raises(ValueError, match="must not hold a user or password") as caught:
            use(uri)
        assert "hidden" not in str(caught.value)
        assert "KEY" not in str(caught.value).replace("AWS_ACCESS_KEY", "").replace("AWS_SECRET_ACCESS_KEY", "")


@pytest.mark.parametrize(
    "uri", ["s3://bucket/a@b", "http://host:9000/a@b", "/data/a:b@c", "https://host/@x?y", "file:///data/a@b"]
)
def test_other_addresses_are_not(uri: str) -> None:
    refuse_credentials(uri)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("https://host:9000/w.pth?token=hidden", "https://host:9000/w.pth?***"),
        ("https://host/w e.pth ?token=hidden#x", "https://host/w e.pth ?***"),
        ("http://user:p@hidden@host/in", "http://***@host/in"),
        ("s3://KEY:7/hidden@bucket/in", "s3://***@bucket/in"),
        ("s3://bucket/what?.png", "s3://bucket/what?.png"),
        ("/data/a b?", "/data/a b?"),
    ],
)
def test_an_address_is_shown_as_host_and_path(address: str, text: str) -> None:
    assert shown(address) == text


def test_a_web_address_with_a_space_is_refused_without_its_query() -> None:
    with pytest.raises(ValueError, match="must not hold spaces") as caught:
        fetch_file("https://host/w.pth ?token=hidden", sha256="0" * 64, config=StorageConfig())
    assert "hidden" not in str(caught.value)


def test_an_endpoint_needs_a_scheme() -> None:
    with pytest.raises(ValueError, match="must begin with http") as caught:
        StorageConfig(endpoint_url="user:hidden@host:9000")
    assert "hidden" not in str(caught.value)


@pytest.fixture
def refusing() -> Iterator[str]:
    """A web server that answers 403."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(403)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_signed_address_that_fails_is_told_without_its_signature(
    refusing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSSS_RAY_CACHE", str(tmp_path))
    uri = f"{refusing}/sam.pth?X-Amz-Credential=AKIAIOSFODNN7EXAMPLE/a/b&X-Amz-Signature=f00dcafe"
    with pytest.raises(StorageError, match="403") as caught:
        fetch_file(uri, sha256="0" * 64, config=StorageConfig())
    assert f"{refusing}/sam.pth?***" in str(caught.value)
    assert "f00dcafe" not in str(caught.value)
    names = [path.name for path in tmp_path.rglob("*")]
    assert names
    assert not any("f00dcafe" in name or "AKIA" in name for name in names)


@pytest.mark.parametrize("as_json", [False, True])
def test_a_log_line_says_where_and_hides_what(as_json: bool) -> None:
    record = logging.LogRecord("wsss_ray.x", logging.WARNING, "x.py", 1, "failed: %s", (SIGNED,), None)
    record.unit, record.image, record.stage = "shard-0-1", 'a "b', "label"
    line = logs.FieldFormatter(as_json=as_json).format(record)
    assert "f00dcafe" not in line
    assert "\n" not in line
    if as_json:
        fields = json.loads(line)
        assert fields["level"] == "WARNING"
        assert fields["message"] == "failed: https://bucket.s3.amazonaws.com/sam.pth?***"
        assert (fields["stage"], fields["unit"], fields["image"]) == ("label", "shard-0-1", 'a "b')
    else:
        assert " WARNING wsss_ray.x: failed: https://bucket" in line
        assert line.endswith(' | stage=label unit=shard-0-1 image="a \\"b"')


def test_lines_of_others_say_where_they_were_called() -> None:
    def line() -> str:
        record = logging.LogRecord("x", logging.WARNING, "x.py", 1, "smaller chunks", (), None)
        return logs.FieldFormatter(as_json=False).format(record).partition(" x: ")[2]

    with logs.at(stage="label", unit="shard-0-1"):
        with logs.at(image="a"):
            assert line() == "smaller chunks | stage=label unit=shard-0-1 image=a"
        assert line() == "smaller chunks | stage=label unit=shard-0-1"
    assert line() == "smaller chunks"


def test_a_traceback_is_masked() -> None:
    with pytest.raises(ValueError, match="https") as caught:
        int(SIGNED)
    record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "broke", (), caught._excinfo)
    text = logs.FieldFormatter(as_json=False).format(record)
    assert "Traceback" in text
    assert "f00dcafe" not in text
