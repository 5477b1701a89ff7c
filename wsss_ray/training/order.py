"""The order of samples: a function of the seed and the data only.

In every epoch the units are permuted, and so are the rows of each unit: that is the *base order*, in which each usable
image occurs once per epoch. A *stretch* is a sequence of `length` iterations. Slot j of the batch gets the stretch's
j-th sequence of `length` samples of the base order, shuffled. So a batch mixes as many positions of the base order as
it has slots, while a worker, which has consecutive slots, reads consecutive units, and hardly any unit is read twice
for any number of workers.

The order does not depend on the number of workers, on deaths, or on where a run was resumed.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_UNITS, _ROWS, _SLOT, _SAMPLE = range(4)
"""Uses of random streams: streams of different uses never coincide."""


@dataclass(frozen=True, kw_only=True)
class TrainingSample:
    """One image in one epoch."""

    epoch: int
    unit: int
    """Index of the unit in the list of units."""
    row: int
    """Row of the unit."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Iterations that share their samples, or the rest of them after a resume."""

    index: int
    first: int
    """First iteration to run, counted from the beginning of the stretch."""
    last: int
    """The iteration after the last one to run."""


class Order:
    """The samples of every iteration."""

    def __init__(
        self, *, rows: Sequence[int], left_out: Mapping[int, Sequence[int]], seed: int, batch_size: int, window: int
    ) -> None:
        """Describe the data.

        Args:
            rows: number of rows by unit.
            left_out: rows that are not used, by index of the unit.
            seed: of all random choices.
            batch_size: samples of one iteration.
            window: number of images over which the slots of a batch are spread; at most all.

        Raises:
            ValueError: no image is left.
        """
        self.seed = seed
        self.batch_size = batch_size
        self._rows = np.asarray(rows, np.int64)
        self._left_out = {unit: tuple(unused) for unit, unused in left_out.items() if unused}
        self._kept = self._rows.copy()
        for unit, unused in self._left_out.items():
            self._kept[unit] -= len(unused)
        self.epoch_samples = int(self._kept.sum())
        if self.epoch_samples == 0:
            raise ValueError("no image with a usable label is left to train on.")
        self.length = max(1, min(window, self.epoch_samples) // batch_size)

    def stretches(self, start: int, end: int) -> list[Stretch]:
        """Return the stretches of iterations `start` to `end` (counted from 0, the end excluded)."""
        if start >= end:
            return []
        return [
            Stretch(
                index=index,
                first=max(start - index * self.length, 0),
                last=min(end - index * self.length, self.length),
            )
            for index in range(start // self.length, -(-end // self.length))
        ]

    def slots(self, stretch: int, slots: range) -> list[list[TrainingSample]]:
        """Return the samples of some slots of the batch in a whole stretch: by slot, then by iteration."""
        return [self._slot(stretch, slot) for slot in slots]

    def _slot(self, stretch: int, slot: int) -> list[TrainingSample]:
        begin = (stretch * self.batch_size + slot) * self.length
        samples = [self._at(position) for position in range(begin, begin + self.length)]
        return [samples[i] for i in random_stream(self.seed, _SLOT, stretch, slot).permutation(self.length)]

    def _at(self, position: int) -> TrainingSample:
        """Return the sample at a position of the base order."""
        epoch, offset = divmod(position, self.epoch_samples)
        units, ends = self._epoch(epoch)
        index = int(np.searchsorted(ends, offset, side="right"))
        unit = int(units[index])
        rows = self._unit_rows(epoch, unit)
        return TrainingSample(epoch=epoch, unit=unit, row=int(rows[offset - (ends[index] - len(rows))]))

    @functools.lru_cache(maxsize=4)  # noqa: B019 - an order exists as long as its run
    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the permuted units, and the number of samples up to the end of each."""
        units = random_stream(self.seed, _UNITS, epoch).permutation(len(self._rows))
        return units, np.cumsum(self._kept[units])

    @functools.lru_cache(maxsize=4)  # noqa: B019 - as above
    def _unit_rows(self, epoch: int, unit: int) -> np.ndarray:
        """Return the usable rows of a unit in the epoch's order."""
        rows = np.setdiff1d(np.arange(self._rows[unit]), self._left_out.get(unit, ()))
        return random_stream(self.seed, _ROWS, epoch, unit).permutation(rows)


def random_stream(seed: int, *key: int) -> np.random.Generator:
    """Return the stream of random numbers of a seed and a key."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def sample_stream(seed: int, sample: TrainingSample) -> np.random.Generator:
    """Return the stream of random numbers that augments one image in one epoch."""
    return random_stream(seed, _SAMPLE, sample.epoch, sample.unit, sample.row)
