"""Keep the rows with the highest scores, in bounded memory, as a table with ranks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


class Ranking:
    """The rows with the highest scores. The result does not depend on the order in which rows are added."""

    def __init__(self, schema: pa.Schema, *, most: int) -> None:
        """Keep at most `most` rows of the schema, which holds `rank`, `score` and `image_id`."""
        self._schema = schema
        self._most = most
        self._rows: list[dict[str, Any]] = []
        self.seen = 0
        """Number of rows that were added."""

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add rows without a rank."""
        before = len(self._rows)
        self._rows += rows
        self.seen += len(self._rows) - before
        if len(self._rows) > 2 * self._most:
            self._cut()

    def rows(self) -> list[dict[str, Any]]:
        """Return the kept rows with their ranks, from 1; equal scores are in the order of image ids."""
        self._cut()
        return [{"rank": rank, **row} for rank, row in enumerate(self._rows, start=1)]

    def to_parquet(self) -> bytes:
        """Return the kept rows as a Parquet file."""
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(self.rows(), schema=self._schema), buffer, compression="zstd")
        return buffer.getvalue()

    def to_csv(self) -> bytes:
        """Return the kept rows as a CSV file: a list is one cell, the kinds of the reasons are one more column."""
        text = io.StringIO()
        rows = [_flat(row) for row in self.rows()]
        names = dict.fromkeys([*self._schema.names, *(rows[0] if rows else ())])
        writer = csv.DictWriter(text, list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()

    def _cut(self) -> None:
        self._rows.sort(key=_order)
        del self._rows[self._most :]


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return the cells of a row. A spreadsheet would run a text that starts with one of =+@ as a formula."""
    cells: dict[str, Any] = {}
    for name, value in row.items():
        if name == "reasons":
            cells["kinds"] = " ".join(reason["kind"] for reason in value)
            value = "; ".join(reason["text"] for reason in value)  # noqa: PLW2901
        elif isinstance(value, list | tuple):
            value = " ".join(map(str, value))  # noqa: PLW2901
        cells[name] = f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "@")) else value
    return cells


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    # An image has several regions; their boxes distinguish them.
    return -row["score"], row["image_id"], row.get("class", ""), row.get("box", ())
