"""What every job that writes label rows counts in them."""

import numpy as np
import pytest

from wsss_ray.labels.decoded_images import pixels_per_class


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("among", [None, {0, 3, 7, 200}, {0, 3, 7, 9, 200}, set(range(201))])
def test_pixels_are_counted_by_id(dtype: type, among: set[int] | None) -> None:
    label = np.random.default_rng(0).choice(np.array([0, 3, 7, 200], dtype), (30, 40))
    ids, counts = np.unique(label, return_counts=True)
    expected = [{"class_id": i, "pixels": n} for i, n in zip(ids.tolist(), counts.tolist(), strict=True)]
    assert pixels_per_class(label, among=among) == expected


def test_an_id_that_nobody_named_is_no_loss_in_silence() -> None:
    with pytest.raises(AssertionError, match="there are other ids"):
        pixels_per_class(np.array([[0, 3, 9]], np.uint8), among={0, 3})
