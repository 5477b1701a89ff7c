"""Write the shards of a small job in one child process: a file that kills its decoder does not kill the job."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection

from wsss_ray.engine import logs
from wsss_ray.engine.task import describe_error
from wsss_ray.errors import JobError
from wsss_ray.sharding.writing import ShardReport, ShardTask, ShardWriter
from wsss_ray.storage import retries


def write_in_child(writer: ShardWriter, tasks: Sequence[ShardTask]) -> Iterator[tuple[int, ShardReport]]:
    """Write the shards in order. Ends early where the process dies.

    Yields:
        Index of the task and its report.

    Raises:
        JobError: a shard cannot be written; names it.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_write, args=(writer, tasks, sender), name="shards", daemon=True)
    process.start()
    sender.close()  # so that the receiver notices the end of the process
    try:
        for index, task in enumerate(tasks):
            report, error, again = receiver.recv()
            retries.add(again)
            if error is not None:
                raise JobError(f"{task.name}: {error}")
            yield index, report
    except (EOFError, OSError):  # no message, or an incomplete one
        return
    finally:
        process.terminate()
        process.join()


def _write(writer: ShardWriter, tasks: Sequence[ShardTask], sender: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # sent by a terminal: the parent ends this process
    logs.configure()
    with suppress(BrokenPipeError):  # the parent has ended
        for task in tasks:
            report, error = None, None
            try:
                report = writer.write(task)
            except Exception as problem:  # noqa: BLE001 - it travels to the parent as text
                logs.failure("the shard cannot be written", problem)
                error = describe_error(problem)
            sender.send((report, error, retries.take()))
