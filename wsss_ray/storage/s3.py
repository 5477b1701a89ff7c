"""S3 as fsspec sees it, with the retries of this package instead of botocore's and s3fs's."""

from __future__ import annotations

from typing import Any

from s3fs import S3FileSystem

from wsss_ray.config import StorageConfig
from wsss_ray.storage import retries

_CONNECT_SECONDS = 10
_READ_SECONDS = 60
"""How long a connection may be silent."""
_CONNECTIONS = 64
"""Requests of one process at once; botocore's own limit is 10."""


class CountedS3(S3FileSystem):
    """s3fs that makes a request again after passing errors alone, with pauses that vary, and counts them.

    s3fs and botocore each have retries of their own, which multiply, and which nobody can count.
    """

    retries = 1  # attempts of s3fs itself

    def __init__(self, *args: Any, limit: int, **options: Any) -> None:
        """Take s3fs's options, and how often a request is made again."""
        super().__init__(*args, **options)
        self._limit = limit
        self._watched: Any = None

    async def set_session(self, refresh: bool = False, kwargs: dict[str, Any] | None = None) -> Any:
        """Connect where that was not done, and decide on this client's retries from then on."""
        client = await super().set_session(refresh=refresh, kwargs=kwargs or {})
        if client is not self._watched:
            client.meta.events.register("needs-retry.s3", self._pause, unique_id="wsss_ray-retries")
            self._watched = client
        return client

    def _pause(
        self, *, response: Any, attempts: int, caught_exception: Exception | None, operation: Any, **_: Any
    ) -> float | None:
        """botocore's question after each attempt: seconds until the next one, or None for no more."""
        if attempts > self._limit:
            return None
        if response is None:
            reason = retries.passing_reason(error=caught_exception)
        else:
            http, parsed = response
            reason = retries.passing_reason(code=parsed.get("Error", {}).get("Code"), status=http.status_code)
        if reason is None:
            return None
        retries.note(reason, f"S3 {operation.name}", attempts)
        return retries.pause(attempts)


def connect(uri: str, config: StorageConfig) -> tuple[S3FileSystem, str]:
    """The file system of an `s3://` URI and the path in it. Keys come from botocore's chain; nothing is touched yet."""
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
