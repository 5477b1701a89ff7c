"""COCO: a directory of images and an instances JSON, of 2014 or 2017, or in the same form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from wsss_ray.classes import ClassSet
from wsss_ray.config import ShardConfig
from wsss_ray.datasets.coco_json import CocoImage, read_instances
from wsss_ray.datasets.files import Files
from wsss_ray.datasets.image_ids import image_ids
from wsss_ray.datasets.items import Item, Listing, TagReader, TruthFile, TruthInstances, sort_items
from wsss_ray.datasets.source import SOURCES
from wsss_ray.storage.storage import Storage


@SOURCES.register("coco")
class CocoSource:
    """A directory of images and an instances JSON."""

    default_classes = "coco"

    def list_images(self, config: ShardConfig, class_set: ClassSet) -> Listing:
        """Return the images of an instances JSON, with their tags and truth.

        Raises:
            ValueError: the JSON is missing or malformed, names files outside the input, or has unknown categories.
        """
        if not config.annotations:
            raise ValueError("COCO needs --annotations, the path of an instances JSON (instances_train2017.json).")
        tags = TagReader(class_set, config.unknown_tags)
        content = read_instances(
            config.annotations,
            config.storage,
            class_set,
            tags,
            crowd_tags=config.crowd_tags,
            masks=config.truth is None,
        )
        return _make_listing(config, content.images, tags, segmented=content.segmented)


def _make_listing(config: ShardConfig, images: Sequence[CocoImage], tags: TagReader, *, segmented: bool) -> Listing:
    root = Storage(config.input, config.storage)
    truths = None if config.truth is None else Storage(config.truth, config.storage)
    files = Files(root)
    sizes = {image.path: files.size(image.path) for image in images}
    if all(size is None for size in sizes.values()):
        raise ValueError(_no_images(root, images, config))
    ids = image_ids(sizes)
    masks = None if truths is None else Files(truths)
    items = []
    for image in images:
        truth: TruthFile | TruthInstances | None = None
        if masks is not None:
            path = str(PurePosixPath(image.path).with_suffix(".png"))
            size = masks.size(path)
            truth = None if size is None else TruthFile(path=path, size=size)
        elif segmented:
            truth = image.truth
        items.append(
            Item(
                image_id=ids[image.path],
                path=image.path,
                size=sizes[image.path],
                similar=files.similar(image.path) if sizes[image.path] is None else None,
                tags=tags.read(sorted(image.tags), image.where),
                truth=truth,
            )
        )
    if masks is not None and truths is not None and all(item.truth is None for item in items):
        example = str(PurePosixPath(images[0].path).with_suffix(".png"))
        raise ValueError(f"{truths.uri} has a truth PNG for none of the {len(items)} images, e.g. {example}.")
    note = "truth is painted from the annotations." if segmented else "the annotations have no segmentation: no truth."
    return Listing(
        items=sort_items(items),
        images=root,
        truths=truths,
        exif="ignore",
        dropped_tags=tags.finish(),
        notes=() if masks is not None else (note,),
    )


def _no_images(root: Storage, images: Sequence[CocoImage], config: ShardConfig) -> str:
    first = images[0].path
    near = [folder for folder in root.folders() if root.exists(f"{folder}/{first}")]
    hint = f" Did you mean --input {root.describe(near[0])}?" if near else ""
    return f"none of the {len(images)} images of {config.annotations} is in {root.uri}, e.g. {first}.{hint}"
