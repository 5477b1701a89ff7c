"""COCO run-length encoding of masks. pycocotools writes it; reading checks the counts, which may be hostile.

Runs go down the columns (Fortran order) and alternate between zeros and ones, zeros first. pycocotools checks
nothing: counts that end early leave the rest of the mask uninitialized, and the size alone decides how much memory it
takes. Here the counts must add up to height * width, within a limit, before a mask is created.
"""

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask

from wsss_ray.images.header import DEFAULT_MAX_PIXELS

_LONGEST_COUNT = 7
"""Most characters of one compressed count: 5 bits each, for numbers of up to 32 bits and their sign."""


def encode_mask(mask: np.ndarray) -> bytes:
    """Return the compressed COCO counts of an (H, W) bool mask; its height and width must be stored beside them."""
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"a mask is (H, W) bool, not {mask.shape} {mask.dtype}")
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]


def encode_crop(crop: np.ndarray, *, top: int, left: int, height: int, width: int) -> bytes:
    """Return the compressed COCO counts of a (height, width) mask, given an (h, w) bool crop with all its pixels.

    The result is that of `encode_mask` on the whole. `top` and `left` are the position of the crop's first pixel.
    """
    if crop.ndim != 2 or crop.dtype != np.bool_:
        raise ValueError(f"a mask is (H, W) bool, not {crop.shape} {crop.dtype}")
    tall, wide = crop.shape
    if not (0 <= top <= height - tall and 0 <= left <= width - wide):
        raise ValueError(f"a crop of {wide} x {tall} at row {top}, column {left} leaves its mask of {width} x {height}")
    pitch = tall + (tall < height)  # one more than the crop has, so that a run ends with each column
    pixels = np.zeros(wide * pitch + 2, np.bool_)
    pixels[1:-1].reshape(wide, pitch)[:, :tall] = crop.T
    edges = np.flatnonzero(pixels[1:] != pixels[:-1])
    positions = edges + edges // max(pitch, 1) * (height - pitch) + (left * height + top)
    bounds = np.concatenate([[0], positions, [height * width]])
    runs = bounds[1:] - bounds[:-1]
    if len(edges) and runs[-1] == 0:
        runs = runs[:-1]
    return coco_mask.frPyObjects([{"size": [height, width], "counts": runs.tolist()}], height, width)[0]["counts"]


def decode_mask(counts: bytes, height: int, width: int, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> np.ndarray:
    """Return the (height, width) bool mask of compressed counts; ValueError unless they fill exactly that size.

    In memory the mask is stored by columns, as pycocotools' own.
    """
    return _mask_of_runs(parse_counts(counts), height, width, max_pixels)


def check_counts(counts: bytes, height: int, width: int) -> None:
    """Raise ValueError unless compressed counts fill exactly that size."""
    _check_runs(parse_counts(counts), height, width)


def mask_overlaps(
    masks: Sequence[bytes], height: int, width: int, *, others: Sequence[bytes] | None = None
) -> np.ndarray:
    """Return the (N, M) float64 IoU of N masks with M others (by default the same), without decoding them.

    All are compressed counts of masks of one size. Two empty masks have an IoU of 0. Raises ValueError unless all
    counts fill exactly that size.
    """
    others = masks if others is None else others
    for counts in {*masks, *others}:
        check_counts(counts, height, width)
    if not masks or not others:
        return np.zeros((len(masks), len(others)))
    rles, other_rles = ([{"size": [height, width], "counts": c} for c in group] for group in (masks, others))
    return np.asarray(coco_mask.iou(rles, other_rles, [False] * len(other_rles)), np.float64)


def intersect_masks(masks: Sequence[bytes], other: bytes, height: int, width: int) -> list[bytes]:
    """Return the counts of what each of N masks shares with another, all compressed counts of masks of one size.

    Raises ValueError unless all counts fill exactly that size.
    """
    for counts in {*masks, other}:
        check_counts(counts, height, width)
    size = [height, width]
    pairs = ([{"size": size, "counts": counts}, {"size": size, "counts": other}] for counts in masks)
    return [coco_mask.merge(pair, True)["counts"] for pair in pairs]


def decode_counts(
    counts: Sequence[int] | str | bytes, height: int, width: int, *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> np.ndarray:
    """Return the (height, width) bool mask of counts in any form of a COCO JSON: a list of runs, or compressed text.

    Raises ValueError for counts that are no runs, do not fill the size, or a size above `max_pixels`.
    """
    if isinstance(counts, str):
        if not counts.isascii():
            raise ValueError("RLE counts hold a character that COCO's compression never writes")
        counts = counts.encode("ascii")
    if isinstance(counts, bytes):
        return decode_mask(counts, height, width, max_pixels=max_pixels)
    if not all(type(run) is int for run in counts):
        raise ValueError("RLE counts must be whole numbers, or text in COCO's compression")
    if any(not 0 <= run < 2**32 for run in counts):
        raise ValueError("RLE counts must be from 0 to 2**32 - 1")
    return _mask_of_runs(np.array(counts, dtype=np.int64), height, width, max_pixels)


def parse_counts(counts: bytes) -> np.ndarray:
    """Return the (N,) int64 run lengths of compressed counts; memory depends on the text and not on the mask.

    A count is a string of characters from 48 on, 5 bits each, lowest first, the sixth bit set on all but the last;
    from the fourth count on it is the difference to the count two before. Raises ValueError for other text.
    """
    codes = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    if codes.size == 0:
        return codes
    if codes.min() < 0 or codes.max() > 63:
        raise ValueError("RLE counts hold a character that COCO's compression never writes")
    last = np.flatnonzero(codes < 32)
    if last.size == 0 or last[-1] != codes.size - 1:
        raise ValueError("RLE counts end within a number: they were cut")
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > _LONGEST_COUNT:
        raise ValueError("RLE counts hold a number that no mask can need")
    shifts = 5 * (np.arange(codes.size) - np.repeat(first, lengths))
    runs = np.add.reduceat((codes & 31) << shifts, first)
    runs[codes[last] & 16 != 0] -= 1 << 5 * lengths[codes[last] & 16 != 0]
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def _mask_of_runs(runs: np.ndarray, height: int, width: int, max_pixels: int) -> np.ndarray:
    if height < 0 or width < 0:
        raise ValueError(f"a mask cannot be {width} x {height} pixels")
    if height * width > max_pixels:
        raise ValueError(f"a mask of {width} x {height} (width x height) is above the limit of {max_pixels} pixels")
    _check_runs(runs, height, width)
    return np.repeat(np.arange(runs.size) % 2 == 1, runs).reshape(width, height).T


def _check_runs(runs: np.ndarray, height: int, width: int) -> None:
    if runs.size and runs.min() < 0:
        raise ValueError("RLE counts hold a negative run")
    if (total := sum(runs.tolist())) != height * width:
        raise ValueError(f"RLE counts add up to {total} pixels, not to the mask's {width} x {height} (width x height)")
