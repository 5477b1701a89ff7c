"""S3 as an fsspec file system, with the retries of this package instead of botocore's and s3fs's.

botocore's "standard" mode does not suffice: it stops early where many requests fail at once (64 connections use up its
quota within seconds of an outage), does not repeat a conditional write that fails because another one runs, and counts
nothing that could be reported. s3fs multiplies its attempts. One policy with one count replaces both.
"""

from __future__ import annotations

from typing import Any

from s3fs import S3FileSystem

from wsss_ray.config import StorageConfig
from wsss_ray.storage import retries

_CONNECT_SECONDS = 10
_READ_SECONDS = 60
"""How long a connection may be silent."""
_CONNECTIONS = 64
"""Requests of one process at once; botocore's default is 10."""


class CountedS3(S3FileSystem):
    """s3fs that repeats requests only after transient errors, with varying pauses, and counts them."""

    retries = 1  # attempts of s3fs itself

    def __init__(self, *args: Any, limit: int, **options: Any) -> None:
        """Take s3fs's options, and how often a request may be repeated."""
        super().__init__(*args, **options)
        self._limit = limit
        self._watched: Any = None

    async def set_session(self, refresh: bool = False, kwargs: dict[str, Any] | None = None) -> Any:
        """Connect unless that was done, and decide on this client's retries from then on."""
        client = await super().set_session(refresh=refresh, kwargs=kwargs or {})
        if client is not self._watched:
            client.meta.events.register("needs-retry.s3", self._pause, unique_id="wsss_ray-retries")
            self._watched = client
        return client

    def _pause(
        self, *, response: Any, attempts: int, caught_exception: Exception | None, operation: Any, **_: Any
    ) -> float | None:
        """Answer botocore after each attempt: seconds until the next one, or None to stop."""
        if attempts > self._limit:
            return None
        if response is None:
            reason = retries.transient_reason(error=caught_exception)
        else:
            http, parsed = response
            reason = retries.transient_reason(code=parsed.get("Error", {}).get("Code"), status=http.status_code)
        if reason is None:
            return None
        retries.note(reason, f"S3 {operation.name}", attempts)
        return retries.pause(attempts)


def connect(uri: str, config: StorageConfig) -> tuple[S3FileSystem, str]:
    """Return the file system of an `s3://` URI and the path in it; no request is sent. Botocore finds the keys."""
    client = {"endpoint_url": config.endpoint_url, "region_name": config.region}
    file_system = CountedS3(
        limit=config.retries,
        profile=config.profile,
        client_kwargs={key: value for key, value in client.items() if value},
        config_kwargs={
            "retries": {"mode": "standard", "total_max_attempts": 1},
            "connect_timeout": _CONNECT_SECONDS,
            "read_timeout": _READ_SECONDS,
            "max_pool_connections": _CONNECTIONS,
        },
        use_listings_cache=False,
    )
    return file_system, CountedS3._strip_protocol(uri)
