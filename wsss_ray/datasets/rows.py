"""Turn a listed item into a row of an image shard, or into the reason why it is rejected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from wsss_ray.classes import ClassSet
from wsss_ray.datasets.coco_truth import Crowd, PaintOrder, paint_truth
from wsss_ray.datasets.items import Item, Listing, TruthFile, TruthInstances
from wsss_ray.datasets.paths import UnreadableError, read_inside
from wsss_ray.images.decoding import decode_image, exif_orientation, read_size
from wsss_ray.images.header import ImageError
from wsss_ray.images.label_png import decode_truth, encode_label, orient_label
from wsss_ray.storage.storage import Storage

RejectStage = Literal["read", "decode", "truth", "crash"]


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """An image that did not become a row."""

    source: str
    """Path relative to the image root."""
    stage: RejectStage
    """What failed: reading the file, decoding it, its truth, or the process that checked it (a crash)."""
    reason: str
    """A kind, a colon, and details."""


@dataclass(frozen=True, kw_only=True)
class RowRules:
    """Rules that every row of a set must meet."""

    exif: Literal["apply", "ignore"]
    max_pixels: int
    max_file_bytes: int
    order: PaintOrder
    crowd: Crowd


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """Bytes of the files of one item."""

    image: bytes
    truth: bytes | None
    """The truth file, where the item has one."""


class RowMaker:
    """Reads and checks the images of a listing. Can be pickled."""

    def __init__(self, listing: Listing, class_set: ClassSet, rules: RowRules) -> None:
        """Keep what reading needs of a listing, without its items."""
        self._images: Storage = listing.images
        self._truths: Storage | None = listing.truths
        self._class_set = class_set
        self._rules = rules
        self._allowed_ids = [class_set.background_id, *class_set.by_id]
        self._palette = class_set.palette() if class_set.label_dtype is np.uint8 else None
        self._names = {entry.id: entry.name for entry in class_set.classes}

    def fetch(self, item: Item) -> Fetched | Rejected:
        """Return the bytes of the item's files; StorageError where the store fails."""
        limit = self._rules.max_file_bytes
        try:
            image = read_inside(self._images, item.path, size=item.size, max_bytes=limit)
        except UnreadableError as error:
            hint = f"; there is {shown_path(item.similar)}" if item.size is None and item.similar else ""
            return reject(item, "read", f"{error}{hint}")
        if not isinstance(item.truth, TruthFile):
            return Fetched(image=image, truth=None)
        assert self._truths is not None, "a truth file has a root"
        try:
            truth = read_inside(self._truths, item.truth.path, size=item.truth.size, max_bytes=limit)
        except UnreadableError as error:
            return reject(item, "truth", f"{error} ({item.truth.path})")
        return Fetched(image=image, truth=truth)

    def make(self, item: Item, fetched: Fetched) -> dict[str, Any] | Rejected:
        """Decode the fetched bytes once, to check them, and return a row of the image shard's schema."""
        rules = self._rules
        try:
            height, width = decode_image(fetched.image, exif=rules.exif, max_pixels=rules.max_pixels).shape[:2]
        except ImageError as error:
            return reject(item, "decode", str(error))
        try:
            truth = self._truth(item, fetched)
        except ValueError as error:
            return reject(item, "truth", str(error))
        tags = item.tags
        if tags is None:
            if truth is None:
                return reject(item, "truth", "no mask: the tags are to be read from it")
            ids = [int(value) for value in np.unique(truth)]
            present = {self._names[value] for value in ids if value in self._names}
            tags = tuple(name for name in self._class_set.names if name in present)
        return {
            "image_id": item.image_id,
            "source": shown_path(item.path),
            "image": fetched.image,
            "height": height,
            "width": width,
            "tags": list(tags),
            "truth": None if truth is None else encode_label(truth, palette=self._palette),
        }

    def _truth(self, item: Item, fetched: Fetched) -> np.ndarray | None:
        """Return the (height, width) label map in the label space's type, turned as the image is."""
        if item.truth is None:
            return None
        class_set, rules = self._class_set, self._rules
        height, width = read_size(fetched.image, exif="ignore", max_pixels=rules.max_pixels)
        if isinstance(item.truth, TruthInstances):
            label = paint_truth(
                item.truth, size=(height, width), class_set=class_set, order=rules.order, crowd=rules.crowd
            )
        else:
            assert fetched.truth is not None
            label = decode_truth(
                fetched.truth,
                size=(height, width),
                allowed_ids=self._allowed_ids,
                ignore_id=class_set.ignore_id,
                palette=self._palette,
                max_pixels=rules.max_pixels,
            ).astype(class_set.label_dtype)
        if rules.exif == "apply":
            label = orient_label(label, exif_orientation(fetched.image, max_pixels=rules.max_pixels))
        return np.ascontiguousarray(label)


def reject(item: Item, stage: RejectStage, reason: str) -> Rejected:
    """Return the rejection of an item, for the list of rejected images."""
    return Rejected(source=shown_path(item.path), stage=stage, reason=reason)


def shown_path(path: str) -> str:
    """Return a path as text: bytes of a file name that are not UTF-8 are written as `\\xNN`."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
