"""What every file under `jobs/` calls: read the configuration, run the job, end with a clear line and exit status."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import TypeVar

from wsss_ray import config
from wsss_ray.data import retries
from wsss_ray.errors import JobError, Terminated

ConfigT = TypeVar("ConfigT")


def run_job(config_type: type[ConfigT], job: Callable[[ConfigT], object]) -> None:
    """Run one job from the command line and exit.

    The exit status is 0 when the job reached its goal, 1 when it did not, 2 for a bad flag or configuration, 130 after
    an interrupt, 143 after SIGTERM; the reason is the last line on standard error.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    parsed = config.parse(config_type)
    try:
        job(parsed)
        tell_of_retries()
    except (ValueError, OSError, JobError) as error:
        tell_of_retries()
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None
    except (KeyboardInterrupt, Terminated) as signal:
        print("interrupted: what is finished stands; the same command goes on from there.", file=sys.stderr, flush=True)
        raise SystemExit(130 if isinstance(signal, KeyboardInterrupt) else 143) from None


def tell_of_retries() -> None:
    """Say what the job's processes asked a store for again; nothing where all went well."""
    counts = retries.counted()
    if counts:
        print(f"storage: {retries.describe(counts)}", file=sys.stderr, flush=True)
