"""The order of samples: a function of the seed, for any number of workers."""

from collections import Counter

import pytest
from training_cases import batch

from wsss_ray.training.order import Order, Stretch, TrainingSample, sample_stream


def make_order(
    rows: list[int],
    *,
    seed: int = 0,
    batch_size: int = 4,
    window: int = 1024,
    left_out: dict[int, list[int]] | None = None,
) -> Order:
    return Order(rows=rows, left_out=left_out or {}, seed=seed, batch_size=batch_size, window=window)


def images(samples: list[TrainingSample]) -> list[tuple[int, int]]:
    return [(sample.unit, sample.row) for sample in samples]


def test_every_image_comes_once_an_epoch() -> None:
    order = make_order([4, 3, 5])
    epochs = 3
    seen = Counter(
        (sample.epoch, sample.unit, sample.row)
        for iteration in range(epochs * 12 // 4)
        for sample in batch(order, iteration)
    )
    expected = {(epoch, unit, row) for epoch in range(epochs) for unit, n in enumerate((4, 3, 5)) for row in range(n)}
    assert set(seen) == expected
    assert set(seen.values()) == {1}


def test_an_epoch_that_the_batch_does_not_divide_goes_on_in_the_next() -> None:
    order = make_order([5], batch_size=2)  # stretches of two iterations: four samples of five
    seen = [sample for iteration in range(10) for sample in batch(order, iteration)]
    counts = Counter((sample.epoch, sample.row) for sample in seen)
    assert counts == {(epoch, row): 1 for epoch in range(4) for row in range(5)}


def test_epochs_and_seeds_differ_and_the_same_seed_repeats() -> None:
    order = make_order([8] * 8, batch_size=8)
    first, second = ([image for i in range(e * 8, e * 8 + 8) for image in images(batch(order, i))] for e in range(2))
    assert first != second
    assert sorted(first) == sorted(second)
    again = make_order([8] * 8, batch_size=8)
    assert [image for i in range(8) for image in images(batch(again, i))] == first
    other = make_order([8] * 8, batch_size=8, seed=1)
    assert [image for i in range(8) for image in images(batch(other, i))] != first


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
def test_workers_share_the_batch_by_index(workers: int) -> None:
    order = make_order([8] * 8, batch_size=8, window=32)
    share = 8 // workers
    parts = [order.slots(1, range(rank * share, (rank + 1) * share)) for rank in range(workers)]
    slots = [slot for part in parts for slot in part]
    for place in range(order.length):
        assert [slot[place] for slot in slots] == batch(order, order.length + place)


def test_a_worker_reads_hardly_any_unit_twice() -> None:
    order = make_order([32] * 64, batch_size=8, window=1024)
    units = [
        {sample.unit for slot in order.slots(0, range(rank * 2, rank * 2 + 2)) for sample in slot} for rank in range(4)
    ]
    assert [len(part) for part in units] == [8, 8, 8, 8]  # 1024 images are 32 units, each read by one of four workers
    assert len(set().union(*units)) == 32


def test_a_batch_mixes_units() -> None:
    order = make_order([32] * 64, batch_size=8, window=1024)
    assert len({sample.unit for sample in batch(order, 0)}) == 8


def test_rows_left_out_never_come_and_the_others_do() -> None:
    order = make_order([4, 4, 4], left_out={0: [1], 1: [0, 1, 2, 3], 2: []})
    assert order.epoch_samples == 7
    seen = {image for iteration in range(14) for image in images(batch(order, iteration))}
    assert seen == {(0, 0), (0, 2), (0, 3), (2, 0), (2, 1), (2, 2), (2, 3)}


def test_no_image_left_is_an_error() -> None:
    with pytest.raises(ValueError, match="no image with a usable label"):
        make_order([2], left_out={0: [0, 1]})


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 8, [(0, 0, 4), (1, 0, 4)]),
        (0, 6, [(0, 0, 4), (1, 0, 2)]),
        (3, 6, [(0, 3, 4), (1, 0, 2)]),
        (5, 6, [(1, 1, 2)]),
        (8, 8, []),
        (6, 6, []),
    ],
)
def test_what_is_left_after_a_resume(start: int, end: int, expected: list[tuple[int, int, int]]) -> None:
    order = make_order([16], batch_size=4)
    assert order.length == 4
    assert order.stretches(start, end) == [Stretch(index=i, first=first, last=last) for i, first, last in expected]


def test_more_samples_in_a_batch_than_images() -> None:
    order = make_order([3], batch_size=8)
    assert order.length == 1
    assert Counter(images(batch(order, 0) + batch(order, 1) + batch(order, 2))) == {(0, row): 8 for row in range(3)}


def test_augmentation_depends_on_seed_epoch_and_image_alone() -> None:
    sample = TrainingSample(epoch=1, unit=2, row=3)
    drawn = sample_stream(0, sample).random(4).tolist()
    assert sample_stream(0, TrainingSample(epoch=1, unit=2, row=3)).random(4).tolist() == drawn
    others = [
        TrainingSample(epoch=2, unit=2, row=3),
        TrainingSample(epoch=1, unit=3, row=3),
        TrainingSample(epoch=1, unit=2, row=2),
    ]
    assert all(sample_stream(0, other).random(4).tolist() != drawn for other in others)
    assert sample_stream(1, sample).random(4).tolist() != drawn
