"""Drift between shards, against numbers from NumPy; and the ranking."""

from __future__ import annotations

import io
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wsss_ray.audit.drift import Shares, find_drift
from wsss_ray.audit.ranking import Ranking


def sums(shares: list[list[float]]) -> dict[str, Shares]:
    """Shards of images that hold a class "cat" by these shares (0: not at all)."""
    shards = {}
    for index, values in enumerate(shares):
        shards[f"s{index}"] = Shares()
        for value in values:
            shards[f"s{index}"].add_image({"cat": value} if value else {})
    return shards


def test_z_scores_are_those_of_drawing_without_return() -> None:
    shares = [[0.1] * 6, [0.2, 0.4] * 4, [0.8] * 5]
    found = find_drift(sums(shares), limit=1e-9)
    whole = np.concatenate(shares)
    for drift in found:
        values = np.array(shares[int(drift.shard[1:])])
        error = whole.std() / np.sqrt(values.size) * np.sqrt((whole.size - values.size) / (whole.size - 1))
        assert drift.z == pytest.approx((values.mean() - whole.mean()) / error)
        assert (drift.share, drift.mean) == (pytest.approx(values.mean()), pytest.approx(whole.mean()))
    assert [drift.shard for drift in found] == ["s2", "s0", "s1"]
    assert [drift.shard for drift in find_drift(sums(shares), limit=3)] == ["s2"]


def test_a_random_split_has_a_standard_error_of_one() -> None:
    generator = np.random.default_rng(0)
    shares = generator.beta(0.3, 2, (2000,))
    scores = [
        drift.z
        for _ in range(30)
        for drift in find_drift(sums(generator.permutation(shares).reshape(20, 100).tolist()), limit=1e-9)
    ]
    assert np.std(scores) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("shares", "judged"),
    [
        ([[0.9], [0] * 20], []),  # one object of a rare class
        ([[0.5] * 4, [0] * 40], []),
        ([[0.5] * 5 + [0] * 5, [0] * 40], ["s0"]),  # five are found
        ([[0] * 20, [0.5] * 30 + [0] * 10], ["s0", "s1"]),  # ten were to be expected
        ([[0.5, 0.1] * 10], []),  # one shard alone
        ([[0.5] * 10, [0.5] * 10], []),  # all the same
    ],
)
def test_what_is_judged(shares: list[list[float]], judged: list[str]) -> None:
    assert sorted(drift.shard for drift in find_drift(sums(shares), limit=1e-6)) == judged


def test_the_order_of_adding_changes_nothing() -> None:
    parts = [Shares() for _ in range(50)]
    generator = np.random.default_rng(1)
    for part in parts:
        part.add_image({"cat": generator.random() / 3})
    forwards, backwards = Shares(), Shares()
    for part in parts:
        forwards.add(part)
    for part in reversed(parts):
        backwards.add(part)
    assert forwards == backwards


SCHEMA = pa.schema([("rank", pa.int32()), ("image_id", pa.string()), ("score", pa.float64())])


def test_a_ranking_keeps_the_best_whatever_their_order() -> None:
    rows = [{"image_id": f"{index:03d}", "score": (index * 7 % 10) / 10} for index in range(100)]
    expected = sorted(rows, key=lambda row: (-row["score"], row["image_id"]))[:12]
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        ranking = Ranking(SCHEMA, most=12)
        for start in range(0, 100, 7):
            ranking.add(rows[start : start + 7])
            assert len(ranking._rows) <= 24
        assert ranking.seen == 100
        assert ranking.rows() == [{"rank": rank, **row} for rank, row in enumerate(expected, start=1)]
        assert pq.read_table(io.BytesIO(ranking.to_parquet())).to_pylist() == ranking.rows()
