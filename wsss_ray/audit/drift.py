"""Classes whose share of the pixels differs from shard to shard more than chance explains.

p is a class's share of the pixels of an image. If a shard's n images were drawn at random from all N, the mean of p
over them would have the standard error s / sqrt(n) x sqrt((N - n) / (N - 1)), where s is the standard deviation of p
over all images. The z score is the distance of the shard's mean from the mean over all images, in standard errors.

A class is compared in a shard only where at least five of its images hold the class, or are expected to by the class's
frequency: one rare object must not look like drift.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

ENOUGH = 5
"""Fewest images with the class, found or expected in a shard, for a comparison: the mean of fewer is not
normally distributed."""


SCALE = 10**12


@dataclass(kw_only=True)
class Shares:
    """Sums over images, per class, as integers in units of 1 / SCALE, so that the order of addition changes nothing."""

    images: int = 0
    total: dict[str, int] = field(default_factory=dict)
    """Sum of the shares, by class."""
    squares: dict[str, int] = field(default_factory=dict)
    """Sum of the squares of the shares, by class."""
    holding: dict[str, int] = field(default_factory=dict)
    """Number of images that hold the class."""

    def add_image(self, shares: Mapping[str, float]) -> None:
        """Add an image by the shares of the classes it holds."""
        self.images += 1
        for name, share in shares.items():
            self._add(name, round(share * SCALE), round(share * share * SCALE), 1)

    def add(self, other: Shares) -> None:
        """Add the images of another sum."""
        self.images += other.images
        for name, total in other.total.items():
            self._add(name, total, other.squares[name], other.holding[name])

    def _add(self, name: str, total: int, squares: int, holding: int) -> None:
        self.total[name] = self.total.get(name, 0) + total
        self.squares[name] = self.squares.get(name, 0) + squares
        self.holding[name] = self.holding.get(name, 0) + holding


@dataclass(frozen=True, kw_only=True)
class Drift:
    """A class in a shard, compared with all shards."""

    shard: str
    class_name: str
    share: float
    """Mean share of the pixels over the shard's images."""
    mean: float
    """The same over all images."""
    images: int
    """Images of the shard that hold the class."""
    z: float


def find_drift(shards: Mapping[str, Shares], *, limit: float) -> list[Drift]:
    """Return the classes in shards whose z score exceeds the limit, the largest first; none for a single shard."""
    whole = Shares()
    for shares in shards.values():
        whole.add(shares)
    found = []
    for name in sorted(whole.total):
        mean = whole.total[name] / SCALE / whole.images
        variance = max(0.0, whole.squares[name] / SCALE / whole.images - mean * mean)
        for shard, shares in sorted(shards.items()):
            held = shares.holding.get(name, 0)
            others = whole.images - shares.images
            if max(held, whole.holding[name] * shares.images / whole.images) < ENOUGH or others == 0:
                continue
            error = np.sqrt(variance / shares.images * others / (whole.images - 1))
            share = shares.total.get(name, 0) / SCALE / shares.images
            if error > 0 and abs(share - mean) > limit * error:
                z = float((share - mean) / error)
                found.append(Drift(shard=shard, class_name=name, share=share, mean=mean, images=held, z=z))
    return sorted(found, key=lambda drift: -abs(drift.z))
