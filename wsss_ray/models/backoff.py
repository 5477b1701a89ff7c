"""Process many items in pieces that fit into the device's memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")


class Backoff:
    """A size of pieces that is halved permanently each time the device runs out of memory."""

    def __init__(self, size: int, *, what: str) -> None:
        """Start with pieces of `size` items; `what` names them in the log."""
        assert size >= 1, size
        self.size = size
        self.retries = 0
        """Number of times that the device ran out of memory and smaller pieces were tried."""
        self._what = what

    def run(self, count: int, work: Callable[[slice], ResultT]) -> Iterator[tuple[slice, ResultT]]:
        """Yield (piece, `work(piece)`) for consecutive slices of `count` items.

        Raises:
            torch.OutOfMemoryError: a single item does not fit.
        """
        start = 0
        while start < count:
            piece = slice(start, min(start + self.size, count))
            try:
                result = work(piece)
            except torch.OutOfMemoryError:
                if piece.stop - piece.start == 1:
                    raise
            else:
                yield piece, result
                start = piece.stop
                continue
            # outside the handler: its traceback keeps the tensors of the failed attempt in memory
            self.size = (piece.stop - piece.start) // 2
            self.retries += 1
            logger.warning("out of device memory: from now on %d %s at once", self.size, self._what)
            torch.cuda.empty_cache()
