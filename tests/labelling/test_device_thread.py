"""The device's thread: one call at a time, and requests that wait are joined."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from wsss_ray.labelling.device_thread import DeviceThread


class Squares:
    """Squares of numbers, with the numbers of each call; the first call waits until it is let go."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.threads: set[int] = set()
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.calls.append(list(numbers))
        self.threads.add(threading.get_ident())
        self.begun.set()
        assert self.go.wait(30)
        if any(number < 0 for number in numbers):
            raise ValueError("negative")
        return [number * number for number in numbers]


def wait_until(thread: DeviceThread[int, int], *, requests: int = 0, calls: int = 0) -> None:
    for _ in range(3000):
        with thread._lock:
            if len(thread._requests) >= requests and len(thread._calls) >= calls:
                return
        threading.Event().wait(0.01)
    raise AssertionError("no request came")


def test_requests_that_wait_are_joined_and_other_calls_come_first() -> None:
    squares = Squares()
    device = DeviceThread[int, int](squares)
    order: list[str] = []
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(device.join, [1])
        assert squares.begun.wait(30)
        waiting = [pool.submit(device.join, numbers) for numbers in ([2, 3], [], [4])]
        wait_until(device, requests=3)
        call = pool.submit(device.run, lambda: order.append(f"{len(squares.calls)} joined calls before"))
        wait_until(device, requests=3, calls=1)
        squares.go.set()
        assert first.result(30) == [1]
        assert [future.result(30) for future in waiting] == [[4, 9], [], [16]]
        call.result(30)
    assert order == ["1 joined calls before"]
    assert len(squares.calls) == 2
    assert sorted(squares.calls[1]) == [2, 3, 4]
    assert len(squares.threads) == 1
    assert threading.get_ident() not in squares.threads


def test_only_the_thread_concerned_sees_an_error() -> None:
    squares = Squares()
    device = DeviceThread[int, int](squares)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(device.join, [1])
        assert squares.begun.wait(30)
        good, bad = pool.submit(device.join, [2]), pool.submit(device.join, [-1])
        wait_until(device, requests=2)
        squares.go.set()
        assert first.result(30) == [1]
        assert good.result(30) == [4]
        with pytest.raises(ValueError, match="negative"):
            bad.result(30)
    assert [sorted(call) for call in squares.calls[1:2]] == [[-1, 2]]


def test_the_end_of_the_process_reaches_every_waiting_thread() -> None:
    begun, go = threading.Event(), threading.Event()

    def end(items: Sequence[int]) -> list[int]:
        begun.set()
        go.wait(30)
        if len(items) > 1:
            raise SystemExit(7)
        return list(items)

    device = DeviceThread[int, int](end)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(device.join, [1])
        assert begun.wait(30)
        others = [pool.submit(device.join, [2]), pool.submit(device.join, [3])]
        wait_until(device, requests=2)
        go.set()
        assert first.result(30) == [1]
        for other in others:
            with pytest.raises(SystemExit):
                other.result(30)


def test_an_error_of_a_call_is_raised_where_it_was_asked_for() -> None:
    device = DeviceThread[int, int](list)

    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        device.run(fail)
    assert device.run(lambda: 3) == 3
