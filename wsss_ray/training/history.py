"""What a run saw, iteration by iteration: metrics.csv and TensorBoard's files, the same after any number of resumes."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from wsss_ray.storage.errors import StorageError, explained
from wsss_ray.storage.storage import Storage

METRICS_FILE = "metrics.csv"
TENSORBOARD = "tensorboard"
_COLUMNS = ["iteration", "loss", "learning_rate", "miou"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One iteration."""

    iteration: int
    """Updates made, this one included: from 1."""
    loss: float
    """Sum over the outputs of their mean cross-entropies."""
    learning_rate: float
    """Of the backbone, in this update."""
    miou: float | None = None
    """Of the validation after this update, 0 to 1."""


class History:
    """The rows of a run, of earlier sessions and this one."""

    def __init__(self, output: Storage, *, start: int) -> None:
        """Go on after `start` iterations: what an earlier session wrote of later ones is forgotten."""
        self.output = output
        self.rows = [row for row in read_metrics(output) if row.iteration <= start]
        # TensorBoard's writer knows no store but disks: remote files are collected here and sent by `write`.
        self._spool = None if output.is_local else tempfile.TemporaryDirectory()
        folder = self._spool.name if self._spool else output.describe(TENSORBOARD)
        self._folder = Path(folder)
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - PyTorch, for reading metrics not needed

        with self._explain():
            # of a session that died before its first checkpoint, too, TensorBoard is to forget what it saw
            self._writer = SummaryWriter(folder, purge_step=start + 1 if start or output.list(TENSORBOARD) else None)

    def add(self, row: Row) -> None:
        """Add an iteration."""
        self.rows.append(row)
        with self._explain():
            self._writer.add_scalar("loss", row.loss, row.iteration)
            self._writer.add_scalar("learning_rate", row.learning_rate, row.iteration)
            if row.miou is not None:
                self._writer.add_scalar("miou", row.miou, row.iteration)

    def write(self) -> None:
        """Write all rows, and send what TensorBoard's writer has."""
        self.output.write(METRICS_FILE, _to_csv(self.rows))
        with self._explain():
            self._writer.flush()
        if self._spool:
            for file in self._folder.iterdir():
                self.output.write(f"{TENSORBOARD}/{file.name}", file.read_bytes())

    def close(self) -> None:
        """Write, and release the files."""
        self.write()
        with self._explain():
            self._writer.close()
        if self._spool:
            self._spool.cleanup()

    @contextmanager
    def _explain(self) -> Iterator[None]:
        """Tell of TensorBoard's writer, which writes past the storage, as the storage would: of a full disk above all.

        Raises:
            StorageError: the writer failed.
        """
        try:
            yield
        except OSError as error:
            raise cast("StorageError", explained(error, str(self._folder))) from error


def read_metrics(output: Storage) -> list[Row]:
    """The rows of metrics.csv; none where there is no such file."""
    try:
        text = output.read(METRICS_FILE).decode()
    except FileNotFoundError:
        return []
    return [
        Row(
            iteration=int(row["iteration"]),
            loss=float(row["loss"]),
            learning_rate=float(row["learning_rate"]),
            miou=float(row["miou"]) if row["miou"] else None,
        )
        for row in csv.DictReader(io.StringIO(text))
    ]


def _to_csv(rows: list[Row]) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        writer.writerow(
            [row.iteration, repr(row.loss), repr(row.learning_rate), "" if row.miou is None else repr(row.miou)]
        )
    return stream.getvalue().encode()
