"""The best of a stream of rows, in bounded memory, as a table with ranks."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


class Ranking:
    """Keeps the rows of the highest score; the result does not depend on the order in which they come."""

    def __init__(self, schema: pa.Schema, *, most: int) -> None:
        """Keep at most `most` rows of the schema, which holds `rank`, `score` and `image_id`."""
        self._schema = schema
        self._most = most
        self._rows: list[dict[str, Any]] = []
        self.seen = 0
        """Rows that came."""

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Take in rows that have no rank yet."""
        before = len(self._rows)
        self._rows += rows
        self.seen += len(self._rows) - before
        if len(self._rows) > 2 * self._most:
            self._cut()

    def rows(self) -> list[dict[str, Any]]:
        """The kept rows, ranked from 1; equal scores by image id."""
        self._cut()
        return [{"rank": rank, **row} for rank, row in enumerate(self._rows, start=1)]

    def to_parquet(self) -> bytes:
        """The kept rows as a Parquet file."""
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(self.rows(), schema=self._schema), buffer, compression="zstd")
        return buffer.getvalue()

    def _cut(self) -> None:
        self._rows.sort(key=_order)
        del self._rows[self._most :]


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    # An image has several places; their boxes tell them apart.
    return -row["score"], row["image_id"], row.get("class", ""), row.get("box", ())
