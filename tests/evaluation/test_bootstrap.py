"""The interval against a plain loop that draws the same images."""

import numpy as np
import pytest

from wsss_ray.evaluation.bootstrap import miou_interval

IMAGES, CLASSES = 12, 4


def entries(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sparse counts of twelve images, of which the last has none."""
    random = np.random.default_rng(seed)
    there = random.random((IMAGES - 1, CLASSES)) < 0.6
    owner, place = np.nonzero(there)
    truth, predicted = random.integers(0, 50, (2, owner.size))
    both = random.integers(0, np.minimum(truth, predicted) + 1)
    return owner, place, np.stack([truth, predicted, both])


def loop(owner: np.ndarray, place: np.ndarray, counts: np.ndarray, *, resamples: int, seed: int) -> tuple[float, float]:
    random = np.random.default_rng(seed)
    scores = []
    for _ in range(resamples):
        sums = np.zeros((3, CLASSES))
        for image in random.integers(IMAGES, size=IMAGES):
            for entry in np.flatnonzero(owner == image):
                sums[:, place[entry]] += counts[:, entry]
        present = sums[0] > 0
        scores.append((sums[2] / (sums[0] + sums[1] - sums[2]).clip(1))[present].mean())
    return float(np.percentile(scores, 2.5)), float(np.percentile(scores, 97.5))


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_is_that_of_a_plain_loop(seed: int) -> None:
    given = entries(seed)
    interval = miou_interval(*given, images=IMAGES, resamples=50, seed=seed)
    assert interval == pytest.approx(loop(*given, resamples=50, seed=seed), abs=1e-12)


def test_the_seed_decides() -> None:
    given = entries(1)
    first = miou_interval(*given, images=IMAGES, resamples=100, seed=5)
    assert miou_interval(*given, images=IMAGES, resamples=100, seed=5) == first
    assert miou_interval(*given, images=IMAGES, resamples=100, seed=6) != first


def test_equal_images_leave_no_width() -> None:
    owner, place = np.arange(5), np.zeros(5, int)
    counts = np.full((3, 5), 4)
    counts[2] = 3
    assert miou_interval(owner, place, counts, images=5, resamples=20, seed=0) == (3 / 5, 3 / 5)


@pytest.mark.parametrize(("images", "resamples"), [(1, 100), (12, 0)])
def test_one_image_or_no_resamples_give_no_interval(images: int, resamples: int) -> None:
    assert miou_interval(*entries(0), images=images, resamples=resamples, seed=0) is None
