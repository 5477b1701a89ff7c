"""Masks through COCO's run-length encoding, and counts that must be refused before a mask is made."""

import tracemalloc
import warnings

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from wsss_ray.images.rle import (
    decode_counts,
    decode_mask,
    encode_crop,
    encode_mask,
    intersect_masks,
    mask_overlaps,
    parse_counts,
)

# Columns: [0, 1, 1], [1, 0, 0]; so runs of 1 zero, 3 ones, 2 zeros.
MASK = np.array([[0, 1], [1, 0], [1, 0]], dtype=bool)


def test_counts_go_down_the_columns_zeros_first() -> None:
    assert encode_mask(MASK) == b"132"
    assert parse_counts(b"132").tolist() == [1, 3, 2]
    for counts in ([1, 3, 2], "132", b"132"):
        np.testing.assert_array_equal(decode_counts(counts, 3, 2), MASK)


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (1, 9), (0, 0), (0, 4), (40, 31), (333, 500)])
@pytest.mark.parametrize("kind", ["zeros", "ones", "noise", "blocks"])
def test_masks_come_back(shape: tuple[int, int], kind: str) -> None:
    generator = np.random.default_rng(7)
    mask = {
        "zeros": np.zeros(shape, dtype=bool),
        "ones": np.ones(shape, dtype=bool),
        "noise": generator.random(shape) < 0.3,
        "blocks": np.add.outer(np.arange(shape[0]) // 11, np.arange(shape[1]) // 17) % 2 == 1,
    }[kind]
    counts = encode_mask(mask)
    runs = parse_counts(counts)
    for decoded in (decode_mask(counts, *shape), decode_counts(runs.tolist(), *shape)):
        assert decoded.dtype == np.bool_
        np.testing.assert_array_equal(decoded, mask)
    np.testing.assert_array_equal(reference_decode(counts, *shape), mask)


def test_negative_differences_and_long_runs_are_parsed() -> None:
    runs = [70000, 5, 1, 40000, 3, 2, 100000, 1]
    packed = coco_mask.frPyObjects({"size": [sum(runs), 1], "counts": runs}, sum(runs), 1)["counts"]
    assert parse_counts(packed).tolist() == runs


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        (b"131", "add up to 5"),
        (b"1321", "add up to"),
        (b"", "add up to 0"),
        (b"13R", "end within a number"),
        (b"1\xff2", "never writes"),
        (b"1 2", "never writes"),
        ("1é2", "never writes"),
        (b"PPPPPPPPPPPPP0", "no mask can need"),
        (b"1O7", "negative run"),
        ([1, 3], "add up to 4"),
        ([7, -1], "from 0 to"),
        ([1, 3, 2**40], "from 0 to"),
        ([1.0, 3, 2], "whole numbers"),
        ([True, 3, 2], "whole numbers"),
        (["1", 3, 2], "whole numbers"),
    ],
)
def test_wrong_counts_are_refused(counts: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode_counts(counts, 3, 2)  # type: ignore[arg-type]


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be"):
        decode_mask(b"132", -3, -2)
    with pytest.raises(ValueError, match="limit of 5"):
        decode_mask(b"132", 3, 2, max_pixels=5)
    np.testing.assert_array_equal(decode_mask(b"132", 3, 2, max_pixels=6), MASK)


def test_a_huge_claim_takes_no_memory() -> None:
    side = 1 << 15
    runs = [side * side]
    packed = coco_mask.frPyObjects({"size": [side, side], "counts": runs}, side, side)["counts"]
    tracemalloc.start()
    for counts in (packed, runs):
        with pytest.raises(ValueError, match="above the limit"):
            decode_counts(counts, side, side)
        with pytest.raises(ValueError, match="add up to"):
            decode_counts(counts, side, side - 1, max_pixels=1 << 40)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_random_text_is_a_mask_or_a_value_error() -> None:
    generator, accepted = np.random.default_rng(3), 0
    for _ in range(4000):
        text = bytes(generator.integers(46, 58, generator.integers(1, 9), dtype=np.uint8))
        try:
            mask = decode_mask(text, 4, 5)
        except ValueError:
            continue
        accepted += 1
        np.testing.assert_array_equal(mask, reference_decode(text, 4, 5))
    assert accepted > 20


def reference_decode(counts: bytes, height: int, width: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of pycocotools under numpy 2
        return coco_mask.decode({"size": [height, width], "counts": counts})


@pytest.mark.parametrize("mask", [np.zeros((2, 2), dtype=np.uint8), np.zeros((2, 2, 1), dtype=bool)])
def test_only_bool_masks_are_encoded(mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="bool"):
        encode_mask(mask)


def test_overlaps_are_those_of_the_decoded_masks() -> None:
    generator = np.random.default_rng(5)
    masks = [generator.random((7, 9)) < share for share in (0.1, 0.5, 0.9)]
    masks += [np.zeros((7, 9), bool), np.ones((7, 9), bool)]
    expected = [[(a & b).sum() / max((a | b).sum(), 1) for b in masks] for a in masks]
    np.testing.assert_allclose(mask_overlaps([encode_mask(mask) for mask in masks], 7, 9), expected)
    assert mask_overlaps([], 7, 9).shape == (0, 0)
    with pytest.raises(ValueError, match="add up to"):
        mask_overlaps([encode_mask(masks[0]), encode_mask(masks[0][:, 1:])], 7, 9)


def test_overlaps_with_others_and_what_masks_share() -> None:
    generator = np.random.default_rng(6)
    masks, others = ([generator.random((7, 9)) < 0.5 for _ in range(count)] for count in (2, 3))
    counts, other_counts = ([encode_mask(mask) for mask in group] for group in (masks, others))
    expected = [[(a & b).sum() / (a | b).sum() for b in others] for a in masks]
    np.testing.assert_allclose(mask_overlaps(counts, 7, 9, others=other_counts), expected)
    assert mask_overlaps([], 7, 9, others=other_counts).shape == (0, 3)
    shared = intersect_masks(counts, other_counts[0], 7, 9)
    np.testing.assert_array_equal([decode_mask(c, 7, 9) for c in shared], [mask & others[0] for mask in masks])
    with pytest.raises(ValueError, match="add up to"):
        intersect_masks(counts, other_counts[0], 9, 9)


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (6, 1), (1, 6), (0, 4), (40, 31)])
def test_a_crop_gives_the_counts_of_the_whole(size: tuple[int, int]) -> None:
    """Every position and size of a crop, pixels at its border or not, against pycocotools on the whole mask."""
    generator = np.random.default_rng(3)
    height, width = size
    for _ in range(300):
        top, bottom = sorted(generator.integers(0, height + 1, 2))
        left, right = sorted(generator.integers(0, width + 1, 2))
        crop = generator.random((bottom - top, right - left)) < generator.choice([0, 0.2, 0.8, 1])
        whole = np.zeros(size, np.bool_)
        whole[top:bottom, left:right] = crop
        counts = encode_crop(crop, top=int(top), left=int(left), height=height, width=width)
        assert counts == coco_mask.encode(np.asfortranarray(whole, np.uint8))["counts"], (top, left, crop)


def test_a_crop_that_leaves_its_mask_is_refused() -> None:
    for top, left in ((2, 0), (-1, 0), (0, 2), (0, -1)):
        with pytest.raises(ValueError, match="leaves its mask"):
            encode_crop(np.ones((3, 3), np.bool_), top=top, left=left, height=4, width=4)
    with pytest.raises(ValueError, match="bool"):
        encode_crop(np.ones((3, 3), np.uint8), top=0, left=0, height=4, width=4)
