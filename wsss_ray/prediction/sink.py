"""Commit a predicted unit: its soft scores, if wanted, before the label file that marks it as finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from wsss_ray.labels.sink import LabelSink, replace_rows
from wsss_ray.prediction.soft import SOFT_SCHEMA, encode_soft, read_soft, soft_path
from wsss_ray.shards.units import Unit


@dataclass(frozen=True, kw_only=True)
class PredictionSink(LabelSink):
    """Write label files and soft scores."""

    soft: bool
    """Whether the rows have `maps` to write."""

    @property
    def outputs(self) -> list[str]:
        """Return what the run directory will hold, for the plan."""
        return [*super().outputs, *(["soft/"] if self.soft else [])]

    def commit(self, unit: Unit, rows: pa.Table, *, version: str | None, gpus: Sequence[str] = ()) -> Mapping[str, Any]:
        """Write the soft scores, then the label file, as `LabelSink.commit`."""
        if self.soft:
            scores = rows.select(SOFT_SCHEMA.names).cast(SOFT_SCHEMA)
            if version is not None:
                scores = replace_rows(read_soft(self.output, unit), scores)
            self.output.write(soft_path(unit), encode_soft(scores))
        return super().commit(unit, rows, version=version, gpus=gpus)
