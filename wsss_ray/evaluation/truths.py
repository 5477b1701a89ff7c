"""Read the truth of an image: a PNG in its shard or in a folder, or COCO annotations that are painted when needed."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np

from wsss_ray.classes import ClassSet
from wsss_ray.config import EvaluateConfig
from wsss_ray.datasets.coco_json import read_instances
from wsss_ray.datasets.coco_truth import Crowd, PaintOrder, paint_truth
from wsss_ray.datasets.image_ids import image_ids
from wsss_ray.datasets.items import TagReader, TruthInstances, first_few
from wsss_ray.images.decoding import exif_orientation
from wsss_ray.images.header import ImageError
from wsss_ray.images.label_png import check_label_size, decode_ids, label_limit, orient_label
from wsss_ray.images.rle import encode_mask
from wsss_ray.labels.inputs import ids_by_shard
from wsss_ray.shards.image_shards import ShardSet
from wsss_ray.storage.storage import Storage


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """The truth of one image."""

    label: np.ndarray
    """(H, W) class ids, as the image is displayed."""
    objects: tuple[tuple[int, bytes], ...] | None
    """Class id and compressed COCO counts of each annotation that is no crowd; None if only the map is known."""


def decode_png(png: bytes, *, palette: bytes | None, image: bytes | None, size: tuple[int, int]) -> Truth:
    """Return the truth in a PNG of class ids.

    Args:
        png: in the orientation of the stored pixels if `image` is given, otherwise as displayed.
        palette: colors by which plain RGB is read.
        image: encoded image whose EXIF orientation applies to the truth.
        size: (height, width) as displayed.

    Raises:
        ImageError: it cannot be used.
    """
    label = decode_ids(png, palette=palette, max_pixels=label_limit(size))
    if image is not None:
        label = orient_label(label, exif_orientation(image, max_pixels=size[0] * size[1]))
    check_label_size(label, size)
    return Truth(label=label, objects=None)


@dataclass(frozen=True, kw_only=True)
class CocoTruth:
    """Paints the annotations that come with a unit, as `wsss-ray shard --source coco` paints them."""

    classes: ClassSet
    order: PaintOrder
    crowd: Crowd

    def paint(self, truth: TruthInstances, *, image: bytes | None, size: tuple[int, int]) -> Truth:
        """Return the truth of an image's annotations, which are drawn on stored pixels.

        `image` and `size` are as for `decode_png`. Raises an ImageError if they cannot be used.
        """
        orientation = 1 if image is None else exif_orientation(image, max_pixels=size[0] * size[1])
        objects: list[tuple[int, bytes]] = []

        def keep(class_id: int, is_crowd: bool, mask: np.ndarray) -> None:
            if not is_crowd:
                turned = orient_label(mask.astype(np.uint8), orientation).astype(bool)
                objects.append((class_id, encode_mask(turned)))

        stored = size if orientation < 5 else (size[1], size[0])
        try:
            label = paint_truth(
                truth, size=stored, class_set=self.classes, order=self.order, crowd=self.crowd, on_mask=keep
            )
        except ValueError as error:
            raise ImageError(str(error)) from error
        return Truth(label=orient_label(label, orientation), objects=tuple(objects))


def unpack(attachment: bytes) -> Mapping[str, TruthInstances]:
    """Return the annotations by image id that came with a unit."""
    return cast("Mapping[str, TruthInstances]", pickle.loads(attachment))  # noqa: S301 - packed by the driver


def pack_by_unit(
    config: EvaluateConfig, classes: ClassSet, images: Storage, shards: ShardSet, subset: frozenset[str] | None
) -> list[bytes]:
    """Return the annotations of `config.coco_annotations` for each unit, in the order of the units.

    Only the driver reads the JSON file. An image that it lists has a truth, possibly only background.

    Raises:
        ValueError: it cannot be read, has categories that are no class, no segmentations, or names no image of the
            shards.
        ShardError: a shard's ids cannot be read.
    """
    source = config.coco_annotations
    assert source is not None, "there are annotations"
    tags = TagReader(classes, "drop")
    content = read_instances(source, config.storage, classes, tags)
    if tags.dropped:
        raise ValueError(
            f"{len(tags.dropped)} categories of {source} are no class of '{classes.name}': "
            f"{first_few(sorted(tags.dropped))}. Use --classes that have them (a YAML file may add aliases)."
        )
    if not content.segmented:
        raise ValueError(f"the annotations of {source} have no segmentation: they cannot be a truth.")
    ids = image_ids(image.path for image in content.images)
    by_id = {ids[image.path]: image.truth for image in content.images}
    example = next(iter(by_id))
    del content
    packed = []
    matched, some_id = 0, ""
    for shard, shard_ids in ids_by_shard(images, shards):
        some_id = some_id or shard_ids[0]
        start = 0
        for unit in (unit for unit in shards.units if unit.shard == shard):
            wanted = shard_ids[start : start + unit.rows]
            start += unit.rows
            found = {name: by_id.pop(name) for name in wanted if name in by_id and (subset is None or name in subset)}
            matched += len(found)
            packed.append(pickle.dumps(found, protocol=pickle.HIGHEST_PROTOCOL))
    if not matched:
        raise ValueError(
            f"{source} names none of the images to evaluate: an id of the image shards is {some_id!r}, of the JSON "
            f"{example!r} (its file_name without the suffix). Give the annotations of these images."
        )
    return packed
