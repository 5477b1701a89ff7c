"""A real S3 server (moto's) in a process of its own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import boto3

from wsss_ray.config import StorageConfig


@dataclass(frozen=True, kw_only=True)
class S3Server:
    """A local S3 server with one bucket."""

    endpoint_url: str
    bucket: str

    @property
    def config(self) -> StorageConfig:
        """How a job reaches it."""
        return StorageConfig(endpoint_url=self.endpoint_url)

    def uri(self, prefix: str) -> str:
        """URI of a prefix in the bucket."""
        return f"s3://{self.bucket}/{prefix}"


@contextmanager
def running_s3() -> Iterator[S3Server]:
    """A server on a free port; it ends with the block, and with this process even where that is killed."""
    server = subprocess.Popen(
        [sys.executable, "-c", _S3_SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        endpoint_url = server.stdout.readline().strip()
        assert endpoint_url.startswith("http://127.0.0.1:"), "the S3 server did not start"
        boto3.client("s3", endpoint_url=endpoint_url).create_bucket(Bucket="tests")
        yield S3Server(endpoint_url=endpoint_url, bucket="tests")
    finally:
        server.stdin.close()
        server.wait(timeout=30)


_S3_SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
print(f"http://{host}:{port}", flush=True)
sys.stdin.read()
"""
