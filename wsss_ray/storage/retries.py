"""Retry requests to a store: the transient errors, the pauses, and a count.

Only the errors in these lists are transient. All others (a missing bucket, denied access) are raised at once.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeVar

logger = logging.getLogger(__name__)

TRANSIENT_ANSWERS = frozenset(
    {
        "SlowDown",
        "ServiceUnavailable",
        "InternalError",
        "OperationAborted",
        "ConditionalRequestConflict",
        "PriorRequestNotComplete",
        "RequestTimeout",
        "RequestTimeoutException",
        "RequestLimitExceeded",
        "BandwidthLimitExceeded",
        "LimitExceededException",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
"""Error codes of a store that is busy, or that is handling another request."""
TRANSIENT_STATUSES = frozenset({429, 500, 502, 503, 504})
"""HTTP statuses of the same, for answers without a body (HEAD) and for proxies, which know no codes."""
TRANSIENT_CONNECTIONS = frozenset(
    {
        "EndpointConnectionError",
        "ConnectTimeoutError",
        "ConnectionClosedError",
        "ReadTimeoutError",
        "ProxyConnectionError",
        "HTTPClientError",
        "ResponseParserError",
    }
)
"""botocore's errors of a connection that was refused, reset, cut off or silent before the answer came."""
TRANSIENT_BODIES = frozenset(
    {
        "AioReadTimeoutError",
        "ClientConnectionResetError",
        "ClientOSError",
        "ClientPayloadError",
        "ConnectionResetError",
        "IncompleteReadError",
        "ResponseStreamingError",
        "ServerDisconnectedError",
        "SocketTimeoutError",
        "TimeoutError",
    }
)
"""Errors of a connection that broke or fell silent while the content of an answer was read."""

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 20.0
_QUIET_ATTEMPTS = 2
"""Attempts before the log reports a retry: a busy store refuses occasionally."""

ResultT = TypeVar("ResultT")

_lock = threading.Lock()
_counted: Counter[str] = Counter()
_taken: Counter[str] = Counter()


def transient_reason(
    *, code: str | None = None, status: int | None = None, error: BaseException | None = None
) -> str | None:
    """Return the name of a transient error (code, status or exception); None for any other."""
    if error is not None:
        name = type(error).__name__
        return name if name in TRANSIENT_CONNECTIONS else None
    if code in TRANSIENT_ANSWERS:
        return code
    return f"HTTP {status}" if status in TRANSIENT_STATUSES else None


def pause(attempt: int) -> float:
    """Return the seconds before the next attempt: doubled each time, up to 20, shortened by up to half at random.

    Args:
        attempt: how many attempts have failed, from 1.
    """
    longest = min(_FIRST_PAUSE * 2.0 ** (attempt - 1), _LONGEST_PAUSE)
    return longest * random.uniform(0.5, 1)  # noqa: S311 - so that workers refused together do not come back together


def note(reason: str, what: str, attempt: int) -> None:
    """Count a request that will be repeated, and log it once it has failed several times."""
    with _lock:
        _counted[reason] += 1
    if attempt > _QUIET_ATTEMPTS:
        logger.warning("%s: %s, attempt %d; trying again", what, reason, attempt)


def again(work: Callable[[], ResultT], *, limit: int, what: str) -> ResultT:
    """Retry a read of an answer's content when the connection drops, `limit` times at most."""
    attempt = 1
    while True:
        try:
            return work()
        except Exception as error:
            reason = type(error).__name__
            if reason not in TRANSIENT_BODIES or attempt > limit:
                raise
        note(reason, what, attempt)
        time.sleep(pause(attempt))
        attempt += 1


def counted() -> Counter[str]:
    """Return the requests repeated since this process began, by reason, with those of `add`."""
    with _lock:
        return _counted.copy()


def take() -> dict[str, int]:
    """Return those that no earlier call has returned: a worker sends them with its next result."""
    with _lock:
        fresh = dict(_counted - _taken)
        _taken.update(fresh)
    return fresh


def add(counts: Mapping[str, int] | None) -> None:
    """Add the counts of a worker."""
    with _lock:
        _counted.update(counts or {})


def describe(counts: Mapping[str, int]) -> str:
    """Return one line for a summary: "17 requests were repeated (12 x SlowDown, 5 x ReadTimeoutError)"."""
    total = sum(counts.values())
    parts = ", ".join(f"{count:,} x {reason}" for reason, count in Counter(counts).most_common())
    return f"{total:,} request{' was' if total == 1 else 's were'} repeated ({parts})"
