"""Shared parts of the benchmarks: contenders that take turns, the head of a table, tables and JSON.

Every speed is a ratio measured in one run. Each contender is a process with its own environment, because the settings
of the allocator matter; it waits while another one works. With one thread, seconds are CPU time (user and system),
which depends less on other load; with several threads they are clock time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

TUNED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_ARENA_MAX": "1"}
"""The allocator of every worker of a job (`wsss_ray.engine.cluster.WORKER_ENVIRONMENT`)."""
PHOTO = (480, 640)
"""Height and width of a usual COCO photo."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to do the work."""

    name: str
    way: str
    """Argument for the script's worker."""
    environment: Mapping[str, str]
    """Variables in addition to those of the shell."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Resources and result of a contender."""

    name: str
    seconds: float
    """Median over the turns."""
    peak_mib: float
    """Peak memory minus the memory before the first call."""
    value: np.ndarray
    """Result of its call."""


def add_options(parser: argparse.ArgumentParser, *, repeats: int) -> None:
    """Add the flags that all scripts have."""
    parser.add_argument("--repeats", type=int, default=repeats, help="measured turns of each contender")
    parser.add_argument("--warm", type=int, default=1, help="turns before them that are not measured")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--skip-bfloat16", action="store_true", help="for processors without bfloat16 instructions")
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--worker", nargs="*", help=argparse.SUPPRESS)


def take_turns(
    script: str, arguments: Sequence[str], contenders: Sequence[Contender], options: argparse.Namespace
) -> list[Answer]:
    """Let the contenders work in turn; return their answers in order.

    `script` is started once per contender with `--worker WAY RESULT ARGUMENTS...`; it must call `serve`.
    """
    skips = skips_bfloat16(options)
    left_out = [contender for contender in contenders if skips and "bfloat16" in contender.way]
    if left_out:
        warnings.warn("bfloat16 is left out: --skip-bfloat16 was given, or oneDNN has none on this CPU", stacklevel=2)
    contenders = [contender for contender in contenders if contender not in left_out]
    single = options.warm + options.repeats == 1  # large networks: only one is in memory at a time
    with tempfile.TemporaryDirectory() as folder:
        results = [str(Path(folder) / f"{number}.npy") for number in range(len(contenders))]
        answers: list[list[tuple[float, float, float]]] = [[] for _ in contenders]
        workers: list[subprocess.Popen[str]] = []
        for contender, result, answer in zip(contenders, results, answers, strict=True):
            workers.append(_start(script, contender, [result, *arguments], options.threads))
            if single:
                answer.append(_turn(workers[-1]))
                workers.pop().communicate()
        for _ in range(0 if single else options.warm + options.repeats):
            for worker, answer in zip(workers, answers, strict=True):
                answer.append(_turn(worker))
        for worker in workers:
            worker.communicate()
        values = [np.load(result) for result in results]
    column = 0 if options.threads == 1 else 1
    return [
        Answer(
            name=contender.name,
            seconds=statistics.median(turn[column] for turn in answer[options.warm :]),
            peak_mib=max(turn[2] for turn in answer),
            value=value,
        )
        for contender, answer, value in zip(contenders, answers, values, strict=True)
    ]


def _start(script: str, contender: Contender, arguments: Sequence[str], threads: int) -> subprocess.Popen[str]:
    variables = {key: value for key, value in os.environ.items() if key not in TUNED}
    variables |= {"OMP_NUM_THREADS": str(threads)} | dict(contender.environment)
    command = [sys.executable, script, "--worker", contender.way, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables)


def _turn(worker: subprocess.Popen[str]) -> tuple[float, float, float]:
    """Let a worker do its work once; return CPU seconds, seconds and MiB."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    print("go", file=worker.stdin, flush=True)
    line = worker.stdout.readline()
    if not line:
        raise SystemExit(f"a contender ended with status {worker.wait()} (-9: too little memory)")
    seconds, elapsed, peak = json.loads(line)
    return seconds, elapsed, peak


def serve(call: Callable[[], np.ndarray], result: str) -> None:
    """Run in a contender: answer each line of standard input with CPU seconds, seconds and MiB of one call."""
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in sys.stdin:
        before, start = cpu_seconds(), time.perf_counter()
        value = call()
        seconds, elapsed = cpu_seconds() - before, time.perf_counter() - start
        np.save(result, value)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps([seconds, elapsed, (peak - loaded) / 1024]), flush=True)


def cpu_seconds() -> float:
    """Return the user and system time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def machine(threads: int) -> str:
    """Return the processor, the versions and the command, for the head of a table."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    load = os.getloadavg()[0]
    return (
        f"{model}, {os.cpu_count()} cores, {threads} thread{'s' * (threads != 1)}, torch {version('torch')}, "
        f"load {load:.1f} at the start\npython {shlex.join(sys.argv)}"
    )


def skips_bfloat16(options: argparse.Namespace) -> bool:
    """Return whether to leave bfloat16 out: by the flag, or because oneDNN lacks it here (torch's own takes hours)."""
    import torch  # noqa: PLC0415

    from wsss_ray.models.fast.linear import DTYPES  # noqa: PLC0415

    return options.skip_bfloat16 or torch.bfloat16 not in DTYPES


def product_peaks(options: argparse.Namespace) -> dict[str, float]:
    """Measure, print and return the best GFLOP/s by dtype."""
    dtypes = ["float32"] if skips_bfloat16(options) else ["float32", "bfloat16"]
    peaks = {dtype: _product_peak(dtype, threads=options.threads) for dtype in dtypes}
    print("best product: " + ", ".join(f"{peak:.0f} GFLOP/s in {dtype}" for dtype, peak in peaks.items()))
    return peaks


def _product_peak(dtype: str, *, threads: int) -> float:
    """Return the best GFLOP/s of large matrix products in this dtype: the limit for any network here."""
    import torch  # noqa: PLC0415

    from wsss_ray.models.fast.linear import FusedLinear  # noqa: PLC0415

    torch.set_num_threads(threads)
    speeds = []
    for rows, inner, columns in ((2048, 2048, 2048), (4096, 1280, 5120)):  # square, and SAM ViT-H's
        layer = torch.nn.Linear(inner, columns, bias=False, dtype=getattr(torch, dtype))
        inputs = torch.randn(rows, inner, dtype=getattr(torch, dtype))
        with torch.inference_mode():
            for _ in range(5):
                for product in (layer, FusedLinear(layer)):
                    start = time.perf_counter()
                    product(inputs)
                    speeds.append(2 * rows * inner * columns / (time.perf_counter() - start) / 1e9)
    return max(speeds)


def random_photo(generator: np.random.Generator, size: tuple[int, int] = PHOTO) -> np.ndarray:
    """Return coarse random patches, (H, W, 3) uint8."""
    height, width = size
    coarse = generator.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(16, axis=0).repeat(16, axis=1)[:height, :width])


def random_boxes(generator: np.random.Generator, count: int, size: tuple[int, int] = PHOTO) -> np.ndarray:
    """Return random boxes, (count, 4) float32 XYXY."""
    corners = generator.random((count, 2, 2)) * [size[1], size[0]]
    return np.concatenate([corners.min(1), corners.max(1)], axis=1).astype(np.float32)


def print_table(rows: Sequence[Mapping[str, Any]], formats: Mapping[str, str]) -> None:
    """Print rows; `formats` gives the columns and the format of their numbers."""
    table = [list(formats)]
    table += [["" if row.get(key) is None else format(row[key], spec) for key, spec in formats.items()] for row in rows]
    widths = [max(len(line[column]) for line in table) for column in range(len(formats))]
    texts = [isinstance(rows[0].get(key), str) for key in formats] if rows else [True] * len(formats)
    for line in table:
        cells = [
            cell.ljust(width) if text else cell.rjust(width)
            for cell, width, text in zip(line, widths, texts, strict=True)
        ]
        print("  ".join(cells).rstrip(), flush=True)


def write_json(path: Path | None, rows: Sequence[Mapping[str, Any]], **head: Any) -> None:
    """Write the rows as JSON if there is a path."""
    if path is not None:
        path.write_text(json.dumps({**head, "rows": list(rows)}, indent=1), encoding="utf-8")
