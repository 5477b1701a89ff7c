"""Masks of several images on a GPU, one bit per pixel, which the host reads at once while the GPU continues."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from wsss_ray.models.results import MaskCrop
from wsss_ray.models.sam.masks import OriginalSize, span


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """Some masks of one image."""

    image: int
    boxes: Sequence[int]
    height: int
    width: int

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Bytes of the scores, of the rows and columns that have a pixel, and of the masks."""
        count = len(self.boxes)
        return 4 * count, count * self.height, count * self.width, count * self.height * -(-self.width // 8)


class PackedMasks:
    """Collects masks on their device; then `send` starts one copy to the host, and `read` waits for that copy alone."""

    def __init__(self) -> None:
        """Start empty."""
        self._parts: list[_Part] = []
        self._pieces: list[Tensor] = []
        self._host: Tensor | None = None
        self._copied: torch.cuda.Event | None = None
        self.bytes = 0
        """Bytes of the masks so far."""

    def add(self, size: OriginalSize, logits: Tensor, scores: Tensor, *, image: int, boxes: Sequence[int]) -> None:
        """Add masks of one image, without waiting for the device.

        Args:
            size: resizes the logits.
            logits: (n, low_side, low_side) float32.
            scores: (n,) float32.
            image: index of the image.
            boxes: index of each mask's box.
        """
        start = 0
        for large in size.resized(logits):
            inside, stop = large > 0, start + len(large)
            height, width = inside.shape[1:]
            part = _Part(image=image, boxes=boxes[start:stop], height=height, width=width)
            bytes_of_pixels = functional.pad(inside, (0, -width % 8)).view(len(large), height, -1, 8)
            bits = torch.arange(7, -1, -1, dtype=torch.uint8, device=inside.device)
            packed = (bytes_of_pixels.to(torch.uint8) << bits).sum(-1, dtype=torch.uint8)
            numbers = scores.new_empty(len(large), dtype=torch.float32).copy_(scores[start:stop])  # with stride 1
            for piece in (numbers, inside.any(2), inside.any(1), packed):
                self._pieces.append(piece.view(torch.uint8).flatten())
            self._parts.append(part)
            self.bytes += sum(part.sizes)
            start = stop

    def send(self) -> None:
        """Start to copy the masks to the host."""
        flat = torch.cat(self._pieces)
        self._pieces.clear()
        if flat.device.type == "cpu":
            self._host = flat
            return
        self._host = flat.to("cpu", non_blocking=True)  # into pinned memory
        self._copied = torch.cuda.Event()
        self._copied.record()

    def read(self) -> Iterator[tuple[int, MaskCrop]]:
        """Yield (index of the image, mask), in the order in which they were added."""
        assert self._host is not None, "not sent"
        if self._copied is not None:
            self._copied.synchronize()
        flat = self._host.numpy()
        start = 0
        for part in self._parts:
            ends = start + np.cumsum(part.sizes)
            scores, rows, columns, packed = np.split(flat[start : ends[-1]], ends[:-1] - start)
            start = ends[-1]
            count = len(part.boxes)
            cuts = _cuts(rows.reshape(count, -1), columns.reshape(count, -1), packed.reshape(count, part.height, -1))
            for box, score, (top, left, mask) in zip(part.boxes, scores.view(np.float32), cuts, strict=True):
                yield part.image, MaskCrop(box_index=box, top=top, left=left, mask=mask, score=float(score))


def _cuts(
    rows: NDArray[np.uint8], columns: NDArray[np.uint8], packed: NDArray[np.uint8]
) -> Iterator[tuple[int, int, NDArray[np.bool_]]]:
    """Yield top, left and pixels of each mask's smallest rectangle; only the bytes of that are unpacked."""
    for in_rows, in_columns, bits in zip(rows, columns, packed, strict=True):
        high, wide = span(in_rows), span(in_columns)
        first = wide.start // 8
        pixels = np.unpackbits(bits[high, first : -(-wide.stop // 8)], axis=1).view(np.bool_)
        yield high.start, wide.start, pixels[:, wide.start - 8 * first : wide.stop - 8 * first].copy()
