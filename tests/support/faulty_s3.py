"""A real HTTP proxy before a real S3 server, which refuses, drops, cuts, loses and goes away as it is told."""

from __future__ import annotations

import http.client
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from soak import SOAK

from wsss_ray.config import StorageConfig


@dataclass(kw_only=True)
class Faults:
    """What happens to requests: shares of them, from 0 to 1, drawn one after the other."""

    refuse: float = 0.0
    """Answered with 503 SlowDown."""
    drop: float = 0.0
    """The connection is closed without an answer, before the server hears of the request."""
    lose: float = 0.0
    """The server acts on the request, but its answer never comes."""
    cut: float = 0.0
    """The answer ends in the middle."""
    error: tuple[int, str, str] | None = None
    """Status, code and further XML of an answer to everything."""
    no_conditions: bool = False
    """Conditional writes are answered with 501."""
    only: str = ""
    """Faults happen only to requests with this method; empty: to all."""


@dataclass
class FaultyS3:
    """The proxy; `faults` may be changed while it runs."""

    server_url: str
    bucket: str
    faults: Faults = field(default_factory=Faults)
    requests: Counter[str] = field(default_factory=Counter)
    """Requests that came in, by method."""
    happened: Counter[str] = field(default_factory=Counter)
    """Faults that happened, by kind."""

    def __post_init__(self) -> None:
        self._random = random.Random(0)
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._open(0)

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def config(self) -> StorageConfig:
        return StorageConfig(endpoint_url=self.endpoint_url)

    def uri(self, prefix: str) -> str:
        return f"s3://{self.bucket}/{prefix}"

    def _open(self, port: int) -> None:
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.proxy = self
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def go_away(self) -> None:
        """Refuse connections, and break those that are open at their next request."""
        server, self._server = self._server, None
        assert server is not None
        server.away = True
        server.shutdown()
        server.server_close()
        self.happened["away"] += 1

    def come_back(self) -> None:
        self._open(self._port)

    def draw(self, method: str) -> str | None:
        """Which fault this request meets."""
        faults = self.faults
        with self._lock:
            self.requests[method] += 1
            if faults.only and method != faults.only:
                return None
            if faults.error is not None:
                return "error"
            for kind in ("refuse", "drop", "lose", "cut"):
                if self._random.random() < getattr(faults, kind):
                    self.happened[kind] += 1
                    return kind
        return None


@contextmanager
def faulty(server: Any) -> Iterator[FaultyS3]:
    """A proxy before the server of the `s3` fixture, while the block runs."""
    proxy = FaultyS3(server.endpoint_url, server.bucket)
    try:
        yield proxy
    finally:
        if proxy._server is not None:
            proxy.go_away()


AWAY_SECONDS = 20.0 if SOAK else 3.0
"""Seconds for which a server is away; more in `make soak`."""


@contextmanager
def away_once(proxy: FaultyS3, when: Callable[[], object]) -> Iterator[None]:
    """While the block runs, the server goes away for a while as soon as `when` is true, and must have done so."""
    ended = threading.Event()

    def go() -> None:
        while not when():
            if ended.wait(0.05):
                return
        proxy.go_away()
        ended.wait(AWAY_SECONDS)
        proxy.come_back()

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert proxy.happened["away"] == 1, "the work was over before"


class _Server(ThreadingHTTPServer):
    proxy: FaultyS3
    away = False
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _answer(self) -> None:
        proxy = self.server.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.away:
            self.close_connection = True
            return
        fault = proxy.draw(self.command)
        conditional = "If-None-Match" in self.headers or "If-Match" in self.headers
        if self.command == "PUT" and conditional and proxy.faults.no_conditions:
            self._refuse(501, "NotImplemented", "")
        elif fault == "error":
            assert proxy.faults.error is not None
            self._refuse(*proxy.faults.error)
        elif fault == "refuse":
            self._refuse(503, "SlowDown", "")
        elif fault == "drop":
            self.close_connection = True
        else:
            self._pass_on(body, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815

    def _pass_on(self, body: bytes, fault: str | None) -> None:
        target = urlsplit(self.server.proxy.server_url)
        connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            connection.request(self.command, self.path, body=body or None, headers=headers)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if fault == "lose":
            self.close_connection = True
            return
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "server", "date"):
                self.send_header(name, value)
        length = response.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if fault == "cut" else content)
        if fault == "cut":
            self.close_connection = True

    def _refuse(self, status: int, code: str, more: str) -> None:
        text = f"<Error><Code>{code}</Code><Message>told by the test</Message>{more}</Error>".encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def log_message(self, *args: Any) -> None:
        """Silent."""
