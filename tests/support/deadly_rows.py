"""A reader of images that ends its process at one of them, as a decoder with a fault would."""

from __future__ import annotations

import os
from typing import Any

from wsss_ray.datasets.items import Item
from wsss_ray.datasets.rows import Fetched, Rejected, RowMaker


class DeadlyRowMaker(RowMaker):
    """Ends the process at 004.png."""

    def make(self, item: Item, fetched: Fetched) -> dict[str, Any] | Rejected:
        if item.path == "004.png":
            os._exit(1)
        return super().make(item, fetched)
