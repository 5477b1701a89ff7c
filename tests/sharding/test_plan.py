"""The division of a set into shards."""

from __future__ import annotations

import numpy as np
import pytest

from wsss_ray.datasets.items import Item
from wsss_ray.sharding.plan import group_items


def items_of(*sizes: int | None) -> list[Item]:
    return [Item(image_id=f"{index:03d}", path=f"{index}.jpg", size=size, tags=()) for index, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("sizes", "lengths"),
    [
        ([10] * 10, [4, 3, 3]),
        ([40], [1]),
        ([1, 1, 100, 1, 1], [3, 2]),
        ([0, None, 0], [3]),
        ([], []),
        ([None, 40, None, 40, None], [2, 3]),
    ],
)
def test_shards_have_nearly_equal_bytes_and_are_never_empty(sizes: list[int | None], lengths: list[int]) -> None:
    items = items_of(*sizes)
    groups = group_items(items, target_bytes=40)
    assert [item for group in groups for item in group] == items
    assert [len(group) for group in groups] == lengths


def test_no_shard_is_much_above_the_target() -> None:
    sizes = np.random.default_rng(0).integers(1, 100, 1000).tolist()
    groups = group_items(items_of(*sizes), target_bytes=1000)
    totals = [sum(item.size or 0 for item in group) for group in groups]
    assert max(totals) < 1100
    assert min(totals) > 850
