"""Extra columns of label files: one value per labelled image, computed beside its label.

A run names the columns that it writes (`--columns`); readers that do not know a column ignore it.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa

from wsss_ray.registry import Registry
from wsss_ray.shards.label_row import LabelRow


class LabelColumn(Protocol):
    """One extra column."""

    type: ClassVar[pa.DataType]
    """Arrow type of the values."""

    def value(self, row: LabelRow, label: np.ndarray) -> Any:
        """Return the value of an image that has a label; a failed image has null.

        Args:
            row: the image's label row with its instances.
            label: (H, W) uint8 or uint16 class ids.
        """
        ...


LABEL_COLUMNS: Registry[type[LabelColumn]] = Registry(kind="label column", group="wsss_ray.label_columns")
