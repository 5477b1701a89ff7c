"""Join the findings of an audit to the images of a gallery."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow.parquet as pq

from wsss_ray.config import ReportConfig
from wsss_ray.report.overview import read_audit
from wsss_ray.report.unit import Card
from wsss_ray.storage.storage import Storage


class Audit:
    """Rows of an audit for the images shown; empty without an audit."""

    def __init__(self, config: ReportConfig, units: set[str]) -> None:
        """Read the audit's rows of these units.

        Raises:
            ValueError: the folder holds no audit.
        """
        self.summary: dict[str, Any] | None = None
        self.kinds: list[str] = []
        self._rows: dict[str, dict[str, Any]] = {}
        self._disagreements: dict[str, list[dict[str, Any]]] = {}
        if config.audit is None:
            return
        storage = Storage(config.audit, config.storage)
        self.summary = read_audit(storage)
        self.kinds = list(self.summary["weights"])
        for row in _parquet_rows(storage, "audit.parquet", ["image_id", "rank", "unit", "reasons"]):
            if row["unit"] in units:
                self._rows[row["image_id"]] = row
        if self.summary.get("against_truth"):
            for row in _parquet_rows(
                storage, "disagreements.parquet", ["image_id", "class", "kind", "other", "box", "unit"]
            ):
                if row["unit"] in units:
                    self._disagreements.setdefault(row["image_id"], []).append(row)

    def join(self, cards: Iterable[Card]) -> None:
        """Add rank, reasons and disagreements with the truth to the cards."""
        for card in cards:
            row = self._rows.get(card.image_id)
            if row is not None:
                card.rank, card.reasons = row["rank"], row["reasons"]
            card.disagreements = self._disagreements.get(card.image_id, [])


def _parquet_rows(storage: Storage, path: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    with storage.open(path) as file, pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(batch_size=4096, columns=list(columns)):
            yield from batch.to_pylist()
