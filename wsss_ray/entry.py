"""What every file under `jobs/` calls: read the configuration, run the job, end with a clear line and exit status."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from wsss_ray import config
from wsss_ray.engine import logs
from wsss_ray.errors import JobError, Terminated
from wsss_ray.storage import retries
from wsss_ray.storage.redaction import masked

ConfigT = TypeVar("ConfigT")


def run_job(config_type: type[ConfigT], job: Callable[[ConfigT], object]) -> None:
    """Run one job from the command line and exit.

    The exit status is 0 when the job reached its goal, 1 when it did not, 2 for a bad flag or configuration, 130 after
    an interrupt, 143 after SIGTERM; the reason is the last line on standard error.
    """
    logs.configure()
    sys.excepthook = _tell_defect
    parsed = config.parse(config_type)
    try:
        job(parsed)
        tell_of_retries()
    except (ValueError, OSError, JobError) as error:
        tell_of_retries()
        print(f"error: {masked(str(error))}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None
    except (KeyboardInterrupt, Terminated) as signal:
        print("interrupted: what is finished stands; the same command goes on from there.", file=sys.stderr, flush=True)
        raise SystemExit(130 if isinstance(signal, KeyboardInterrupt) else 143) from None


def _tell_defect(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The traceback of what nobody foresaw, without secrets."""
    text = "".join(traceback.format_exception(kind, error, trace))
    print(masked(text), end="", file=sys.stderr, flush=True)


def tell_of_retries() -> None:
    """Say what the job's processes asked a store for again; nothing where all went well."""
    counts = retries.counted()
    if counts:
        print(f"storage: {retries.describe(counts)}", file=sys.stderr, flush=True)
