"""COCO: a directory of images and an instances JSON, of 2014, 2017 or of one's own in this form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from wsss_ray.classes import ClassSet
from wsss_ray.config import ShardConfig
from wsss_ray.data.sources.items import Item, Listing, TagReader, TruthFile, TruthInstances, sort_items
from wsss_ray.data.sources.manifest import read_bytes
from wsss_ray.data.sources.paths import Files, image_ids, plain_path
from wsss_ray.data.storage import Storage


@dataclass(kw_only=True)
class _Image:
    """One entry of `images`, and what its annotations say."""

    path: str
    where: str
    height: int | None
    width: int | None
    tags: set[str] = field(default_factory=set)
    instances: list[bytes] = field(default_factory=list)
    """JSON of [class id, is crowd, segmentation] each."""


def list_coco(config: ShardConfig, class_set: ClassSet) -> Listing:
    """List the images of an instances JSON, with their tags and truth.

    Raises:
        ValueError: the JSON is missing or malformed, names files outside the input, or has unknown categories.
    """
    if not config.annotations:
        raise ValueError("COCO needs --annotations, the path of an instances JSON (instances_train2017.json).")
    source = config.annotations
    content = _parse(read_bytes(source, config.storage, what="instances JSON"), source)
    images = _read_images(content, source)
    tags = TagReader(class_set, config.unknown_tags)
    names = _read_categories(content, class_set, source)
    segmented = _add_annotations(content, images, names=names, class_set=class_set, tags=tags, config=config)
    del content
    return _make_listing(config, list(images.values()), tags, segmented=segmented)


def _parse(data: bytes, source: str) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source} is not valid JSON: {error}.") from error
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    ):
        raise ValueError(f"{source} is not an instances JSON: it lacks the lists `images` and `annotations`.")
    for key in ("images", "annotations", "categories"):
        wrong = [index for index, record in enumerate(content.get(key) or []) if not isinstance(record, dict)]
        if wrong:
            raise ValueError(f"{source}: {key}[{wrong[0]}] is not an object.")
    return content


def _read_images(content: Mapping[str, Any], source: str) -> dict[int, _Image]:
    images: dict[int, _Image] = {}
    paths: dict[str, int] = {}
    for index, record in enumerate(content["images"]):
        where = f"{source}: images[{index}]"
        image_id = record.get("id")
        if type(image_id) is not int or not isinstance(record.get("file_name"), str):
            raise ValueError(f"{where}: `id` must be a whole number and `file_name` a string.")
        path = plain_path(record["file_name"], where)
        if image_id in images or path in paths:
            raise ValueError(f"{where}: the image {path} (id {image_id}) is listed twice.")
        height, width = (record.get(key) for key in ("height", "width"))
        if not all(value is None or (type(value) is int and value > 0) for value in (height, width)):
            raise ValueError(f"{where}: `height` and `width` must be whole numbers above 0.")
        images[image_id] = _Image(path=path, where=where, height=height, width=width)
        paths[path] = image_id
    if not images:
        raise ValueError(f"{source} lists no image.")
    return images


def _read_categories(content: Mapping[str, Any], class_set: ClassSet, source: str) -> dict[int, str]:
    """Name of each category id: the file's own, or without a list of categories the class set's."""
    names: dict[int, str] = {}
    for index, record in enumerate(content.get("categories") or []):
        category, name = record.get("id"), record.get("name")
        if type(category) is not int or not isinstance(name, str):
            raise ValueError(f"{source}: categories[{index}]: `id` must be a whole number and `name` a string.")
        if category in names:
            raise ValueError(f"{source}: categories[{index}]: the id {category} is used twice.")
        names[category] = name
    if not names:
        names = {entry.category_id: entry.name for entry in class_set.classes if entry.category_id is not None}
    return names


def _add_annotations(
    content: Mapping[str, Any],
    images: Mapping[int, _Image],
    *,
    names: Mapping[int, str],
    class_set: ClassSet,
    tags: TagReader,
    config: ShardConfig,
) -> bool:
    """Give each image its tags and instances; whether any annotation has a segmentation."""
    source, wants_masks, segmented = config.annotations, config.truth is None, False
    for index, record in enumerate(content["annotations"]):
        where = f"{source}: annotations[{index}]"
        image = images.get(record.get("image_id")) if type(record.get("image_id")) is int else None
        if image is None:
            raise ValueError(f"{where}: no image has the id {record.get('image_id')!r:.40}.")
        category, is_crowd = record.get("category_id"), record.get("iscrowd", 0)
        if type(category) is not int or category not in names:
            raise ValueError(f"{where}: no category has the id {category!r:.40}.")
        if is_crowd not in (0, 1):
            raise ValueError(f"{where}: `iscrowd` must be 0 or 1, not {is_crowd!r:.40}.")
        name = tags.read([names[category]], where)
        if not name:
            continue
        if not is_crowd or config.crowd_tags:
            image.tags.update(name)
        if wants_masks:
            segmented = segmented or bool(record.get("segmentation"))
            instance = [class_set.by_name[name[0]].id, int(is_crowd), record.get("segmentation")]
            image.instances.append(json.dumps(instance, separators=(",", ":")).encode())
            record.pop("segmentation", None)  # hundreds of MB over all of COCO
    return segmented


def _make_listing(config: ShardConfig, images: list[_Image], tags: TagReader, *, segmented: bool) -> Listing:
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
            joined = b"[" + b",".join(image.instances) + b"]"
            truth = TruthInstances(annotations=joined, height=image.height, width=image.width)
        items.append(
            Item(
                image_id=ids[image.path],
                path=image.path,
                size=sizes[image.path],
                tags=tags.read(sorted(image.tags), image.where),
                truth=truth,
            )
        )
    if masks is not None and truths is not None and all(item.truth is None for item in items):
        example = str(PurePosixPath(images[0].path).with_suffix(".png"))
        raise ValueError(f"{truths.uri} has a truth PNG for none of the {len(items)} images, e.g. {example}.")
    note = "truth painted from the annotations." if segmented else "the annotations have no segmentation: no truth."
    return Listing(
        items=sort_items(items),
        images=root,
        truths=truths,
        exif="ignore",
        dropped_tags=tags.finish(),
        notes=() if masks is not None else (note,),
    )


def _no_images(root: Storage, images: list[_Image], config: ShardConfig) -> str:
    first = images[0].path
    near = [folder for folder in root.folders() if root.exists(f"{folder}/{first}")]
    hint = f" Did you mean --input {root.describe(near[0])}?" if near else ""
    return f"none of the {len(images)} images of {config.annotations} is in {root.uri}, e.g. {first}.{hint}"
