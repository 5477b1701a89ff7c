"""One thread that uses the device for all units that an actor works on, and joins what they ask of the detector.

CUDA libraries keep plans per thread, so one thread makes each plan once. Images of equal size are rare within a unit:
when the detector's turn comes, it takes the images of all units that wait for it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class _Request(Generic[ItemT, ResultT]):
    items: Sequence[ItemT]
    future: Future[list[ResultT]]


class DeviceThread(Generic[ItemT, ResultT]):
    """Runs calls of other threads one at a time. Calls of `run` come before joined ones, so that many join."""

    def __init__(self, joined: Callable[[Sequence[ItemT]], list[ResultT]]) -> None:
        """Start idle.

        Args:
            joined: what `join` computes: one result for each item. It runs in the device's thread.
        """
        self._joined = joined
        self._thread = ThreadPoolExecutor(1, "device")
        self._lock = threading.Lock()
        self._calls: deque[Callable[[], None]] = deque()
        self._requests: list[_Request[ItemT, ResultT]] = []

    def run(self, call: Callable[[], ValueT]) -> ValueT:
        """Return what `call` returns in the device's thread."""
        future: Future[ValueT] = Future()
        with self._lock:
            self._calls.append(lambda: _settle(future, call))
        self._thread.submit(self._work)
        return future.result()

    def join(self, items: Sequence[ItemT]) -> list[ResultT]:
        """Return the results of items, computed together with those of all threads that wait here at that time.

        Where a joined call raises, each thread's items run again alone, so that only the thread concerned sees it.
        """
        request = _Request[ItemT, ResultT](items, Future())
        with self._lock:
            self._requests.append(request)
        self._thread.submit(self._work)
        return request.future.result()

    def _work(self) -> None:
        """Do what comes next. There is one call of this for each call and request; joining leaves some without work."""
        with self._lock:
            call = self._calls.popleft() if self._calls else None
            requests = [] if call else self._requests
            if call is None:
                self._requests = []
        if call is not None:
            call()
        elif requests:
            self._run_joined(requests)

    def _run_joined(self, requests: Sequence[_Request[ItemT, ResultT]]) -> None:
        if len(requests) > 1:
            try:
                results = self._joined([item for request in requests for item in request.items])
            except Exception:  # noqa: BLE001 - it is raised again below, in the thread that caused it
                results = None
            except BaseException as error:  # noqa: BLE001 - the process is to end: every waiting thread learns of it
                for request in requests:
                    request.future.set_exception(error)
                return
            if results is not None:
                start = 0
                for request in requests:
                    request.future.set_result(results[start : start + len(request.items)])
                    start += len(request.items)
                return
        for request in requests:
            _settle(request.future, lambda items=request.items: self._joined(items))  # type: ignore[misc]


def _settle(future: Future[ValueT], call: Callable[[], ValueT]) -> None:
    """Give a future what a call returns or raises."""
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - the waiting thread raises it
        future.set_exception(error)
    else:
        future.set_result(result)
