"""metrics.csv: one row per iteration of a training. Needs no PyTorch."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wsss_ray.storage.storage import Storage

METRICS_FILE = "metrics.csv"
_COLUMNS = ["iteration", "loss", "learning_rate", "miou"]


@dataclass(frozen=True, kw_only=True)
class IterationMetrics:
    """Metrics of one iteration."""

    iteration: int
    """Finished updates including this one: from 1."""
    loss: float
    """Sum over the outputs of their mean cross-entropies."""
    learning_rate: float
    """Learning rate of the backbone in this update."""
    miou: float | None = None
    """mIoU of the validation after this update, 0 to 1."""


def read_metrics(output: Storage) -> list[IterationMetrics]:
    """Return the rows of metrics.csv; none if there is no such file.

    Raises:
        ValueError: the file is damaged; names the file and the line.
    """
    try:
        data = output.read(METRICS_FILE)
    except FileNotFoundError:
        return []
    where = output.describe(METRICS_FILE)
    try:
        reader = csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True)
        _check_columns(reader.fieldnames)
        rows: list[IterationMetrics] = []
        for line, row in enumerate(reader, 2):
            rows.append(_parse(row, line, expected=len(rows) + 1))
    except (ValueError, csv.Error) as error:
        raise ValueError(
            f"{where} is damaged: {error}. Remove it: the run then continues, and the file lacks earlier iterations."
        ) from error
    return rows


def write_metrics(output: Storage, rows: Sequence[IterationMetrics]) -> None:
    """Write metrics.csv."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        miou = "" if row.miou is None else repr(row.miou)
        writer.writerow([row.iteration, repr(row.loss), repr(row.learning_rate), miou])
    output.write(METRICS_FILE, stream.getvalue().encode())


def _check_columns(found: Sequence[str] | None) -> None:
    if found != _COLUMNS:
        raise ValueError(f"its columns are not {', '.join(_COLUMNS)}")


def _parse(row: Mapping[str | None, str | None], line: int, *, expected: int) -> IterationMetrics:
    try:
        values = {name: row[name] or "" for name in _COLUMNS}
        metrics = IterationMetrics(
            iteration=int(values["iteration"]),
            loss=float(values["loss"]),
            learning_rate=float(values["learning_rate"]),
            miou=float(values["miou"]) if values["miou"] else None,
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"line {line}: {error}") from error
    if None in row:
        raise ValueError(f"line {line} has more than {len(_COLUMNS)} values")
    if metrics.iteration < expected:
        raise ValueError(f"line {line} is of iteration {metrics.iteration}, not {expected} or later")
    return metrics
