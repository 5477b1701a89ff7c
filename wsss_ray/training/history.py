"""The metrics of a run as metrics.csv and as TensorBoard files, the same after any number of resumes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from torch.utils.tensorboard import SummaryWriter

from wsss_ray.storage.errors import StorageError, explained
from wsss_ray.storage.storage import Storage
from wsss_ray.training.metrics import IterationMetrics, read_metrics, write_metrics

TENSORBOARD = "tensorboard"


class History:
    """The metrics of all iterations, of earlier sessions and this one."""

    def __init__(self, output: Storage, *, start: int) -> None:
        """Continue after `start` iterations: rows that an earlier session wrote for later ones are dropped."""
        self.output = output
        self.rows = [row for row in read_metrics(output) if row.iteration <= start]
        # TensorBoard's writer needs a local folder: for a remote output, `write` uploads its files.
        self._spool = None if output.is_local else tempfile.TemporaryDirectory()
        folder = self._spool.name if self._spool else output.describe(TENSORBOARD)
        self._folder = Path(folder)
        with self._explain():
            # TensorBoard must also drop the steps of a session that died before its first checkpoint.
            self._writer = SummaryWriter(folder, purge_step=start + 1 if start or output.list(TENSORBOARD) else None)

    def add(self, row: IterationMetrics) -> None:
        """Add an iteration."""
        self.rows.append(row)
        with self._explain():
            self._writer.add_scalar("loss", row.loss, row.iteration)
            self._writer.add_scalar("learning_rate", row.learning_rate, row.iteration)
            if row.miou is not None:
                self._writer.add_scalar("miou", row.miou, row.iteration)

    def write(self) -> None:
        """Write all rows, and the events that TensorBoard's writer holds."""
        write_metrics(self.output, self.rows)
        with self._explain():
            self._writer.flush()
        if self._spool:
            for file in self._folder.iterdir():
                self.output.write(f"{TENSORBOARD}/{file.name}", file.read_bytes())

    def close(self) -> None:
        """Write, and close the files."""
        self.write()
        with self._explain():
            self._writer.close()
        if self._spool:
            self._spool.cleanup()

    @contextmanager
    def _explain(self) -> Iterator[None]:
        """Turn an OSError of TensorBoard's writer, such as a full disk, into the storage's error.

        Raises:
            StorageError: the writer failed.
        """
        try:
            yield
        except OSError as error:
            raise cast("StorageError", explained(error, str(self._folder))) from error
