"""Which sample comes when: a function of the seed and the data alone.

In every epoch the units are permuted, and the rows of each unit among themselves: that is the *base order*, in which
each usable image comes once an epoch, epoch after epoch. A *stretch* is a run of `length` iterations. Slot j of the
batch takes the stretch's j-th run of `length` samples of the base order, shuffled. So a batch mixes as many places of
the base order as it has slots, while a worker, which has a run of slots, reads a run of units and hardly any unit is
read twice, whatever the number of workers.

Nothing here depends on the number of workers, on what has died or on where a run was resumed.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_UNITS, _ROWS, _SLOT, _SAMPLE = range(4)
"""What a random stream is for: streams of different use never coincide."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image in one epoch."""

    epoch: int
    unit: int
    """Place of the unit in the list of units."""
    row: int
    """Row of the unit."""


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Iterations that draw on the same samples, or what is left of them after a resume."""

    index: int
    first: int
    """First iteration wanted, counted from the stretch's beginning."""
    last: int
    """The iteration after the last wanted."""


class Order:
    """The samples of every iteration."""

    def __init__(
        self, *, rows: Sequence[int], left_out: Mapping[int, Sequence[int]], seed: int, batch_size: int, window: int
    ) -> None:
        """Describe the data.

        Args:
            rows: number of rows by unit.
            left_out: rows that are not to be used, by place of the unit.
            seed: of all random choices.
            batch_size: samples of one iteration.
            window: images among which the slots of a batch are spread; of smaller sets all.

        Raises:
            ValueError: no image is left.
        """
        self.seed = seed
        self.batch_size = batch_size
        self._rows = np.asarray(rows, np.int64)
        self._left_out = {unit: tuple(places) for unit, places in left_out.items() if places}
        self._kept = self._rows.copy()
        for unit, places in self._left_out.items():
            self._kept[unit] -= len(places)
        self.epoch_samples = int(self._kept.sum())
        if self.epoch_samples == 0:
            raise ValueError("no image with a usable label is left to train on.")
        self.length = max(1, min(window, self.epoch_samples) // batch_size)

    def stretches(self, start: int, end: int) -> list[Stretch]:
        """The stretches of iterations `start` to `end` (counted from 0, the end excluded)."""
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

    def slots(self, stretch: int, slots: range) -> list[list[Sample]]:
        """Samples of some slots of the batch over a whole stretch: by slot, then by iteration."""
        return [self._slot(stretch, slot) for slot in slots]

    def batch(self, iteration: int) -> list[Sample]:
        """All samples of an iteration (counted from 0), by slot."""
        stretch, place = divmod(iteration, self.length)
        return [samples[place] for samples in self.slots(stretch, range(self.batch_size))]

    def _slot(self, stretch: int, slot: int) -> list[Sample]:
        begin = (stretch * self.batch_size + slot) * self.length
        run = [self._at(place) for place in range(begin, begin + self.length)]
        return [run[i] for i in random_stream(self.seed, _SLOT, stretch, slot).permutation(self.length)]

    def _at(self, place: int) -> Sample:
        """Sample at a place of the base order."""
        epoch, offset = divmod(place, self.epoch_samples)
        units, ends = self._epoch(epoch)
        position = int(np.searchsorted(ends, offset, side="right"))
        unit = int(units[position])
        rows = self._unit_rows(epoch, unit)
        return Sample(epoch=epoch, unit=unit, row=int(rows[offset - (ends[position] - len(rows))]))

    @functools.lru_cache(maxsize=4)  # noqa: B019 - an order lives as long as its run
    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Permuted units, and how many samples come before the end of each."""
        units = random_stream(self.seed, _UNITS, epoch).permutation(len(self._rows))
        return units, np.cumsum(self._kept[units])

    @functools.lru_cache(maxsize=4)  # noqa: B019 - as above
    def _unit_rows(self, epoch: int, unit: int) -> np.ndarray:
        """Usable rows of a unit in the epoch's order."""
        rows = np.setdiff1d(np.arange(self._rows[unit]), self._left_out.get(unit, ()))
        return random_stream(self.seed, _ROWS, epoch, unit).permutation(rows)


def random_stream(seed: int, *key: int) -> np.random.Generator:
    """A stream of random numbers of its own for every seed and key."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def sample_stream(seed: int, sample: Sample) -> np.random.Generator:
    """The random numbers of one image in one epoch, for its augmentation."""
    return random_stream(seed, _SAMPLE, sample.epoch, sample.unit, sample.row)
